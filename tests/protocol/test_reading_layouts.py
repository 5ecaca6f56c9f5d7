"""A verdict goes to the step that is meant, in every usual layout and wording. Chains and labels are written as in
tests/support/verdict_chains.py."""

import pytest

from support.verdict_chains import chain_of, labels_of


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<+++>\n\nGoing back to step 2, 3*4 is 12 and not 14, so it is {-}", "100"),
        ("<+++>\n\nGoing back to step 2. 3*4 is 12.\nSo it is {-}", "100"),
        ("<+++>\n\nWait, the multiplication in Step 2 was off: {-}", "100"),
        ("<+++>\n\nLet me double check\n\nActually, step 2 multiplies wrongly. The step is {-}", "100"),
        ("<+++>\n\nOn second thought step two is {-}.", "100"),
        ("<+++>\n\nLet me re-examine the second step. 3*4 is 12. So it is {-}", "100"),
        ("<+++>\n\nI was wrong about Step 2. It should be {-}.", "100"),
        ("<+++>\n\nRevised verdict: Step 2 {-}", "100"),
        ("<+++>\n\nThe verdict for Step 2 should be {-}", "100"),
        ("<+->\n\nDid I miss something?\n\nStep 2 again: 3*4 = 12 indeed. {+}\nStep 3: fine. {+}", "111"),
        ("<+-+>\n\nLet me double check\n\n{+}\n{+}\n{+}", "111"),
        ("<b>Step 1</b>: {+}<br>\n<b>Step 2</b>: {-}", "10"),
    ],
)
def test_a_step_that_is_judged_again_has_its_last_verdict(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (
            "Step 1: a. The step is {+}\nStep 2: b. {+}\nUsing the result of Step 1, we see that Step 3 is {-}",
            "110",
        ),
        ("Step 3: Using the result of Step 1, we get 5. The step is {-}\nStep 1: {+}\nStep 2: {+}", "110"),
        ("Step 1: a {+}\nStep 2: This contradicts Step 1, so the step is {-}", "10"),
        ("Step 1: a {+}\nStep 2: b\nThis follows from Step 1: it holds.\n{-}", "10"),
        ("Step 1: a {+}\nStep 2: b\nBy Step 1 it follows that x=2, so this step is {-}", "10"),
        ("Step 1: a {+}\nStep 2: b\nIn Step 1 we found x = 2, so the step is {-}", "10"),
        ("Step 1: a {+}\nStep 2: b\nStep 1 gave x = 2 and so the step is {-}", "10"),
        ("Step 1: a {+}\nStep 2: b\nNote that Step 3 needs this, so the step is {-}\nStep 3: {+}", "100"),
        ("Step 1: a {+}\nStep 2: b\nSince Step 1 gives 5, {-}", "10"),
        ("Step 1: a {+}\nStep 2, using the result of Step 1, is {-}", "10"),
        ("Step 1 is fine: {+}\nStep 2 follows from Step 1 and is {-}", "10"),
        ("Step 1: ok {+}\nCompared with Step 1, Step 2 is {-}", "10"),
        ("As shown in Step 1, Step 2 is {-}. Step 1 is {+}.", "10"),
        ("Step 1: 3+4 = 12. {+}\nStep 2: 5*3 = 15. {-}", "10"),
        ("Step 1: ok\nThe total is\n12. {+}\nStep 2: {-}", "10"),
        (
            "Step 1: a {+}\n\nStep 2: b\n\nFirst step:\n\nDivide.\n\nThird step: more.\n\nThe step is {-}",
            "100",
        ),
        (
            "Step 1: a {+}\n\nStep 2: b\n\nWait, again. Step 1 gave x = 2. Twice that is 4.\n\nThe step is {-}",
            "100",
        ),
        ("Step 1: a {+}\n\nStep 2: b\n\n1. First, add\n2. Then halve\n3. So 4\n\nThe step is {-}", "100"),
    ],
)
def test_another_step_that_is_named_takes_nothing_away(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Step 1: {+}; Step 2: {-}", "10"),
        ("Step 1: {+}, Step 2: {+}, Step 3: {-}", "110"),
        ("Step 1 {+}, Step 2 {-}", "100"),
        ("1. {+} 2. {+} 3. {-}", "110"),
        ("1) {+}; 2) {-}; 3) {+}", "100"),
        ("Step 1 is {+} and Step 2 is {+} but Step 3 is {-}.", "110"),
        ("Let's start with step 1. Fine. {+}\nMoving on to Step 2. 3*4=14. That is wrong.\n{-}", "100"),
        ("For Step 1, we see it holds. {+}\nFor Step 2, it fails. {-}", "10"),
        ("For Step 1, we see it holds, {+}; for Step 2, it fails, {-}", "10"),
        ("[Step 1] ok {+}\n[Step 2] no {-}", "10"),
        ("Step 1/2: ok {+}\nStep 2/2: no {-}", "10"),
        ("Step 1 of 2: ok {+}\nStep 2 of 2: no {-}", "10"),
        ("Paragraph 1: ok {+}\nParagraph 2: no {-}", "10"),
        ("Paragraph 2 is wrong. {-}\nParagraph 1 is right. {+}", "10"),
        ("1. a\n   ok {+}\n2. b\n   no {-}\n3. c\n {+}", "100"),
        ("The second step is {-}. The first step is {+}.", "10"),
        ("First step: fine. {+}\nSecond step: off. {-}", "10"),
        ("Step one: fine. {+}\nStep two: off. {-}", "10"),
        ("{+} for Step 1, {-} for Step 2", "10"),
        ("{+} (Step 1)\n{-} (Step 2)", "10"),
        ("Step 1 adds 2 and 3 to get 5, which is {+}. Step 2 multiplies by 2. That gives 11, so it is {-}.", "10"),
        (
            "Step 1 restates the problem. Step 2 multiplies 3 by 4 and gets 14. So it is {-}. And step 1 is {+}.",
            "10",
        ),
        ("**Step 2**\nwrong\n{-}\n\n**Step 1**\nfine\n{+}", "10"),
        ("Step 1 → {+}\nStep 2 → {-}", "10"),
        ("1: {+}\n2: {-}", "10"),
        ("(1) {+}\n(2) {-}", "10"),
        ("Step (1): {+}\nStep (2): {-}", "10"),
        ("Verdicts: 1. {+}, 2. {-}", "10"),
        ("Step 1.1: sub {+}\nStep 2.1: {-}", "10"),
        ("Step I: {+}\nStep II: {-}", "10"),
        ("\\text{Step 1: } {+}\n\\textbf{Step 2: } {-}", "10"),
        (
            "Let's verify step by step:\n\nStep 1: 48 * 2 = 98. The step is {+}\n\n48*2 is 96.\nThe step is {-}",
            "0",
        ),
        ("Step 1: fine {+}\nNext step: this one multiplies. {-}", "10"),
        ("Step 1: fine {+}\nNow the next step. It multiplies. {-}", "10"),
    ],
)
def test_labels_turns_sentences_lists_and_lines(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Step 1：好的。{+}\nStep 2：不好。{-}", "10"),
        ("步骤 1：好的。{+}\n步骤 2：不好。{-}", "10"),
        ("第一步：好。\\boxed{正确}\n第二步：不对。\\boxed{错误}", "100"),
        ("第二步\\boxed{错误}，第一步\\boxed{正确}", "10"),
        ("在第一步中，计算无误，所以\\boxed{正确}。接下来看第二步，3*4=14，因此\\boxed{错误}。", "10"),
        ("由第一步的结果可知，第二步\\boxed{错误}。第一步\\boxed{正确}。", "10"),
        ("Step 1: {+}\nStep 2: {+}\n第一步和第二步都\\boxed{正确}，第三步\\boxed{不正确}", "110"),
    ],
)
def test_chinese(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("| Step | Verdict |\n|---|---|\n| 2 | {-} |\n| 1 | {+} |\n| 3 | {+} |", "100"),
        ("| Step | Why | Verdict |\n|---|---|---|\n| Step 2 | uses Step 1 | {-} |\n| Step 1 | ok | {+} |", "10"),
        ("| 3 | Step 1 gives 4 | {-} |\n| 1 | ok | {+} |\n| 2 | ok | {+} |", "110"),
        ("| Step 1 | Step 2 |\n|---|---|\n| {+} | {-} |", "10"),
    ],
)
def test_tables(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Steps 1 and 2 are {+}, while Step 3 is {-}", "110"),
        ("Steps 1, 2 and 3 are {+}. Step 4 is {-}.", "1110"),
        ("Step 1, Step 2 and Step 3 are all {+}.\nStep 4: {-}", "1110"),
        ("All steps are {+}.", "111"),
        ("The first two steps are {+}. The last step is {-}.", "110"),
    ],
)
def test_several_steps_at_once(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<++>\n\nSo the whole solution is {-}", "11"),
        ("<++>\n\nOverall verdict: {-}", "11"),
        ("I end each step with {+} or {-}.\n\n<+>", "1?"),
        ("- {+} if the step is correct\n- {-} if the step is wrong\n\n<+>", "1?"),
        ("Step 1: {+}\nStep 2: is it {-}? Let me see. It is {+}", "11"),
        ("Step 1: {+}\nStep 2: the product is wrong, it is not {+}.", "10"),
    ],
)
def test_what_is_no_verdict_on_a_step_and_what_is_its_opposite(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<+++>\n\nLet me double check\n\nStep 2 is actually {-}, because 3*4 = 12.", "100"),
        ("<+->\n\nLet me double check\n\nI was too strict on step 2: rounding is allowed. {+}", "11"),
        ("<++>\n\nHold on. In step 1, the sign is lost. Hence step 1 is {-}.", "00"),
        ("<++>\n\nOn closer inspection the first step contains an error, so my verdict for it is {-}", "00"),
        ("<+++>\n\nLooking again at the second step, 7*8 = 54 is false. Verdict: {-}", "100"),
        ("<+++>\n\nChange of verdict for step 2 → {-}", "100"),
        ("<+++>\n\nCorrection to Step 2: {-}", "100"),
        ("<+++>\n\nI take back what I said about Step 2. {-}", "100"),
        ("<+++>\n\n回到第二步，3*4=12，所以是\\boxed{错误}", "100"),
        ("<+++>\n\n重新检查步骤 2：\\boxed{错误}", "100"),
        ("<+++>\n\nThe issue lies in step 3, which divides by zero: {-}", "110"),
        ("<+++>\n\nOh wait, step 3 divides by zero!\n{-}", "110"),
        (
            "<+++>\n\nLet me double check\n\nSteps 1 and 2 hold up. {+}\nStep 3, however, divides by zero. {-}",
            "110",
        ),
        ("<+->\n\nLet me double check\n\nEverything before was too harsh. Both steps are {+}.", "11"),
        ("First, the setup is fine: {+}\nSecond, the product is off: {-}", "10"),
        ("Step 1 ({+}), Step 2 ({-})", "10"),
        ("Step 1 - {+} | Step 2 - {-} | Step 3 - {+}", "100"),
        ("S1: {+}\nS2: {-}", "10"),
        ("#1: {+}\n#2: {-}", "10"),
        ("(Step 1) ok. {+}\n(Step 2) no. {-}", "10"),
        ("<step 1> ok {+}\n<step 2> no {-}", "10"),
        ("Analysis of Step 1: fine. {+}\nAnalysis of Step 2: off. {-}", "10"),
        ("### Analysis of Step 1\nfine\n{+}\n### Analysis of Step 2\noff\n{-}", "10"),
        ("Next up is Step 2. It is off. {-}\nStep 1 was {+}", "10"),
        ("Now consider step 1. ok {+}\nNow consider step 2. no {-}", "10"),
        ("As for step 1, ok {+}. As for step 2, no {-}.", "10"),
        ("Let us turn to step 1: ok {+}\nWe then come to step 2: no {-}", "10"),
        ("Regarding Step 2: {-}\nRegarding Step 1: {+}", "10"),
        ("Step 2: {-}\nStep 1: {+}", "10"),
        (
            "In step 1 the author adds. That is right. {+} In step 2 the author multiplies. That is wrong. {-}",
            "10",
        ),
        ("Step 1's computation is {+}. Step 2's computation is {-}.", "10"),
        ("The claim in Step 1 is {+}. The claim in Step 2 is {-}.", "10"),
        ("Step 1 checks out, {+}. However, Step 2 does not follow from Step 1, {-}.", "10"),
        (
            "Step 1 is right {+} and so Step 2, which needs Step 1, is {+}, but Step 3, unlike Step 2, is {-}",
            "110",
        ),
        (
            "Step 3 uses Step 1 and Step 2. Both fine, the sum is off. The step is {-}. Step 1: {+} Step 2: {+}",
            "110",
        ),
        ("Step 1: {+}\nStep 2: {+}\nStep 3: By steps 1 and 2, we have x = 3, so step 3 is {-}", "110"),
        (
            "Step 1: {+}\nStep 2: Plugging the value from step 1 into that of step 1 gives 7, which is {-}",
            "10",
        ),
        ("Step 1: {+}\nStep 2: We carried over the 5 of Step 1 here; {-}", "10"),
        (
            "Step 1: {+}\nStep 2: This is the same as Step 1. {+}\nStep 3: Same mistake as in Step 2? No. {+}",
            "111",
        ),
        ("\\begin{tabular}{cc}\nStep & Verdict \\\\\n2 & {-} \\\\\n1 & {+} \\\\\n\\end{tabular}", "10"),
        ("| # | Verdict |\n|:-:|:-:|\n| 1 | {+} |\n| 2 | {-} |", "10"),
        ("| Verdict | Step |\n|---|---|\n| {-} | Step 2 |\n| {+} | Step 1 |", "10"),
        ("|Step|Verdict|\n|-|-|\n|3|{-}|\n|1|{+}|\n|2|{+}|", "110"),
        ("| Step 1: add | fine | {+} |\n| Step 2: halve | off | {-} |", "10"),
        ("| **Step 2** | {-} |\n| **Step 1** | {+} |", "10"),
        ("步骤1是\\boxed{正确}的，步骤2是\\boxed{错误}的。", "10"),
        ("第1步正确：\\boxed{正确}；第2步错误：\\boxed{错误}", "10"),
        ("对于第一步，没问题。\\boxed{正确}\n对于第二步，计算错误。\\boxed{错误}", "10"),
        ("根据第一步，x=2。因此第二步\\boxed{正确}，第三步利用第二步的结果，\\boxed{错误}。", "?10"),
        ("第一步：好\n\\boxed{\\text{正确}}\n第二步：坏\n\\boxed{\\text{不正确}}", "10"),
        ("- {+}\n- {-}", "10"),
        ("1. x\n2. y\n\nStep 1: {+}\nStep 2: {-}", "10"),
        ("1. The first step adds. {+}\n2. The second step halves. {-}", "10"),
        ("**1.** ok {+}\n\n**2.** no {-}", "10"),
        ("1. ok\n   - uses Step 1\n   {+}\n2. no\n   {-}", "10"),
        ("Step 1: 5 + 7 = 12 {+}\nStep 2: 12 - 3 = 8 {-}", "10"),
        ("Step 1: {+}.\nStep 2: {+}.\nTherefore, the solution is {+}.", "11"),
        ("Step 1: {+}.\nStep 2: {+}.\n**Final Verdict**: {-}", "11"),
        ("Is Step 1 {-}? No: it is {+}.\nStep 2 {+}", "11"),
        ("Step 1 would be {-} if x were 0, but it is not. So Step 1 is {+}.", "1"),
        ("Each step is marked {+} or {-} below.\nStep 1: {+}\nStep 2: {-}", "10"),
        ("Step 1 of the solution is {+}. Step 2 of the solution is {-}.", "10"),
        ("Both Step 1 and Step 2 are {+}; Step 3 is {-}.", "110"),
        ("Steps 1–3: {+}\nStep 4: {-}", "1110"),
        ("Steps 1 through 3 are {+}", "111"),
        ("The last step is {-}; all the others are {+}.", "110"),
        (
            "Step 10: {-}\nSteps 1-7: {+}\nStep 8: {+}\nStep 9: {+}",
            "1111111110",
        ),
        ("Step 1: okay.\n{+}\n\n---\n\nStep 2: hmm\n{-}", "10"),
        ("Sure! Here's my review.\n\n**Step 1** – fine – {+}\n**Step 2** – off – {-}", "10"),
        ("`Step 1`: {+}\n`Step 2`: {-}", "10"),
        ('"Step 1: 2+2=4" is {+}. "Step 2: 2*3=7" is {-}.', "10"),
        ("Step 1 [2+2=4]: {+}\nStep 2 [2*3=7]: {-}", "10"),
        ("Step 1 \\(2+2=4\\): {+}\nStep 2 \\(2*3=7\\): {-}", "10"),
        ("Step 1: {+}\nStep 2: the result is: 1. {-}", "10"),
        ("Verdict 1: {+}\nVerdict 2: {-}", "10"),
        ("Step 1 ✓ {+}\nStep 2 ✗ {-}", "10"),
        (
            "Step 1: {+}\n\nStep 2: see above. As we said in Step 1: x = 2. Then 2x = 5?\n\nNo. The step is {-}",
            "10",
        ),
        (
            "Let me go through the steps one by one. Step 1 first. It is fine {+}. Step 2 next. It is not {+}.",
            "10",
        ),
        ("Step 1 — \\(\\boxed{\\text{correct}}\\)\nStep 2 — \\(\\boxed{\\text{incorrect}}\\)", "10"),
        ("Step 1: fine.\n\n\\[\n{+}\n\\]\n\nStep 2: off.\n\n\\[\n{-}\n\\]", "10"),
        ("Step 1\n======\nfine {+}\n\nStep 2\n======\noff {-}", "10"),
        ("1/2: {+}\n2/2: {-}", "10"),
        ("Step 1 is fine. I mark it {+}. Step 2 is not fine. I mark it {-}.", "10"),
        ("I mark Step 1 as {+} and Step 2 as {-}.", "10"),
        ("My verdicts are {+} for Step 1 and {-} for Step 2.", "10"),
        ("I would call step 2 {-} and step 1 {+}.", "10"),
        ("Step 1 (correct) {+}\nStep 2 (incorrect) {-}", "10"),
        ("Since step 1 is {+}, we go on. Since step 2 divides by zero, it is {-}.", "10"),
        ("Up to Step 2 everything is {+}. Step 3 is {-}.", "110"),
        ("Step 1: The sum is 12.\nVerdict: {+}\n\nStep 2: The product is 36.\nVerdict: {-}", "10"),
        ("Checking step 1... fine. {+}\nChecking step 2... not fine. {-}", "10"),
        ("Step #1 looks right: {+}. Step #2 looks wrong: {-}.", "10"),
        ("Step No. 1: {+}\nStep No. 2: {-}", "10"),
        ("STEP 1. {+}\nSTEP 2. {-}", "10"),
        ("Step 1 :{+}\nStep 2 :{-}", "10"),
        ("step1: {+}\nstep2: {-}", "10"),
        ("Step_1: {+}\nStep_2: {-}", "10"),
        ("Paragraph 1 is fine. {+} Paragraph 2 isn't. {-}", "10"),
        ("First step — {+}; second step — {-}; third step — {+}", "100"),
        ("The 1st step is {+}, the 2nd step is {-}.", "10"),
        ("Step 1 and 2: {+}\nStep 3: {-}", "110"),
        ("Steps 1 & 2: {+}\nSteps 3 & 4: {-}", "1100"),
        ("Steps 1 to 3 are {+}; step 4 is {-}.", "1110"),
        (
            "Steps 1-3: {+}\n\nLet's verify again\n\nStep 1 and Step 3 are {+}, but Step 2 is {-}.",
            "100",
        ),
        (
            "Step 1: {+}\nStep 2: {-}\n\nLet's verify again\n\nThe objection to step 2 was bad; step 2 is {+}.",
            "11",
        ),
        (
            "Step 1: {+}\nStep 2: {-}\n\nLet's verify again\n\nHmm. My complaint about Step 2 fails. I say {+}.",
            "11",
        ),
        ("Step 1: {+}\nStep 2: {-}\n\nWait, I misread Step 2: it says 12, not 14. So it is {+}.", "11"),
        ("Step 1: {+}\nStep 2: {-}\n\nWait, I misread it: it says 12, not 14. So the step is {+}.", "11"),
        ("Step 1: {+}\nStep 2: {+}\n\nSorry, going over Step 1 once more, I find a slip: {-}", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nReturning to the first step: the sign is wrong. {-}", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nUpdate: step 1 → {-}", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nRevision.\n- Step 1: {-}", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nCorrected verdict on step 1: {-}", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nActually no, step 1 fails when x = 0, making it {-}.", "00"),
        ("Step 1: {+}\nStep 2: {+}\n\nThe error sits in step 1 rather than step 2, so step 1 is {-}", "00"),
        ("Step 1: ok {+}\nStep 2: Given Step 1, and with x from Step 1, y = 3. {-}", "10"),
        ("Step 1: ok {+}\nStep 2: (from Step 1) y = 3 {-}", "10"),
        ("Step 1: ok {+}\nStep 2: as Step 1 shows, y = 3. {-}", "10"),
        ("Step 1: ok {+}\nStep 2: y = 3, which agrees with Step 1. {-}", "10"),
        ("Step 1: ok {+}\nStep 2: y = 3, contradicting Step 1 — {-}", "10"),
        ("Step 1: ok {+}\nStep 2: y = 3, needed in Step 3. {-}\nStep 3: {+}", "100"),
        ("Step 1: ok {+}\nStep 2: The result of Step 1 is reused, therefore {-}", "10"),
        ("Step 1: ok {+}\nStep 2: In contrast to Step 1, this is {-}", "10"),
        ("Step 1: ok {+}\nStep 2: Step 1 said x = 2; here x = 3. {-}", "10"),
        ("Step 1: ok {+}\nStep 2: Note: Step 1 used x > 0. {-}", "10"),
        ("## Step 1\nok\n\n{+}\n\n## Step 2\nRecall Step 1: x = 2.\n\n{-}", "10"),
        ("Step 1: ok {+}\n\nStep 2: The claim is y = 3.\n\nStep 1 gave y = 2.\n\nHence: {-}", "10"),
        (
            "| No. | Comment | Result |\n|---|---|---|\n| 3 | bad | {-} |\n| 2 | ok | {+} |\n| 1 | ok | {+} |",
            "110",
        ),
        ("| Step | 1 | 2 | 3 |\n|---|---|---|---|\n| Verdict | {+} | {-} | {+} |", "100"),
        ("Step\tVerdict\n2\t{-}\n1\t{+}", "10"),
        ("1 | {+}\n2 | {-}", "10"),
        ("步骤一：{+}\n步骤二：{-}", "10"),
        ("步骤1、2：\\boxed{正确}\n步骤3：\\boxed{错误}", "110"),
        ("第1、2步\\boxed{正确}，第3步\\boxed{错误}", "110"),
        ("前两步\\boxed{正确}，第三步\\boxed{错误}", "110"),
        ("第一步\\boxed{正确}。第二步\\boxed{正确}。\n等等，第一步其实有误，应为\\boxed{错误}", "00"),
        ("步骤 1 的判断：\\boxed{正确}\n步骤 2 的判断：\\boxed{错误}", "10"),
        ("最后一步\\boxed{错误}，第一步\\boxed{正确}", "10"),
        ("第十二步：\\boxed{错误}\n第十一步：\\boxed{正确}", "??????????10"),
        ("Step\u00a01\u00a0: {+}\nStep\u00a02\u00a0: {-}", "10"),
    ],
)
def test_further_wordings(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels
