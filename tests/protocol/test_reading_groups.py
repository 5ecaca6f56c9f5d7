"""Verdicts on several steps at once, named by no numbers: `all previous steps`, `the others`, `其余步骤`.

Chains and labels are written as in tests/support/verdict_chains.py.
"""

import pytest

from support.verdict_chains import chain_of, labels_of


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("All previous steps are {+}, but step 3 is {-}.", "110"),
        ("All previous steps are {+}. Step 3 is {-}.", "110"),
        ("All previous steps are {+}.\nStep 3: 2*7 is 14.\n{-}", "110"),
        ("All the previous steps are {+}, however Step 3 is {-}", "110"),
        ("All of the previous steps were {+}; step 3 is {-}", "110"),
        ("Every earlier step is {+}, but step 3 is {-}.", "110"),
        ("The preceding steps are {+}, but step 3 is {-}.", "110"),
        ("The prior steps: {+}. Step 3: {-}", "110"),
        ("The previous two steps are {+}, but step 3 is {-}.", "110"),
        ("The two previous steps are {+}, but step 4 is {-}.", "?110"),
        ("The steps above are {+}, but step 3 is {-}.", "110"),
        ("The above steps are all {+}.", "111"),
        ("All steps so far are {+}, but step 3 is {-}.", "110"),
        ("Everything so far is {+}, but step 3 is {-}.", "110"),
        ("All previous steps check out and are {+}, but step 3 is {-}.", "110"),
        ("Step 3 is {-}. All previous steps are {+}.", "110"),
        ("Step 3 is {-}, while all earlier steps are {+}.", "110"),
        ("Step 3: all previous steps are {+}, but this step is {-}.", "110"),
        ("Step 3: The previous steps are {+}. This one is {-}.", "110"),
        ("Step 2: {-}. All previous steps are {+}; step 3 follows from step 2 and is {-}.", "100"),
        ("Step 1: {+}\nAll earlier steps are {+}, but step 4 is {-}", "1110"),
        ("Step 2 is {-}. All subsequent steps are {-}.", "?00"),
        ("Step 1: {+}\nStep 2: {-}\nThe later steps are {+}.", "100"),
        ("Step 1 is {+}. The following steps are {-}.", "100"),
        ("Step 1 is {+}. The next two steps are {-}.", "100"),
    ],
)
def test_the_steps_before_and_behind(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Steps 1-3 are {+}.", "111"),
        ("Steps 1–3 are all {+}, step 4 is {-}", "1110"),
        ("Steps 1, 2 and 4 are {+}, Step 3 is {-}.", "110"),
        ("Steps 1, 2, and 4 are {+}.", "11?1"),
        ("Step 1-3: {+}\nStep 4: {-}", "1110"),
        ("Step 1 to Step 3 are {+}; step 4 is {-}.", "1110"),
        ("Step 1 through Step 3 are {+}; step 4 is {-}.", "1110"),
        ("From step 1 to step 3 all is {+}; step 4 is {-}.", "1110"),
        ("The first two steps are {+}, the last step is {-}.", "110"),
        ("The first 2 steps are {+}, step 3 is {-}.", "110"),
        ("The first and second steps are {+}, the third step is {-}.", "110"),
        ("The first, second and fourth steps are {+}, the third step is {-}", "110"),
        ("Both the first and the second step are {+}; the third step is {-}.", "110"),
        ("The first to third steps are {+}, the fourth step is {-}.", "1110"),
        ("Step 1 and the last step are {+}; step 2 is {-}.", "100"),
        ("The last two steps are {-}, the first step is {+}", "100"),
        ("Step 3 and all previous steps are {+}; step 4 is {-}.", "1110"),
        ("All previous steps and step 3 are {+}; step 4 is {-}.", "1110"),
        ("Step 2 and all later steps are {-}; step 1 is {+}.", "100"),
        ("Steps 2 and onwards are {-}. Step 1 is {+}.", "100"),
        ("Step 2 onwards is {-}; step 1 is {+}", "100"),
        ("Everything before step 3 is {+}; step 3 is {-}.", "110"),
        ("Everything up to step 2 is {+}; step 3 is {-}.", "110"),
        ("All steps up to and including Step 2 are {+}. Step 3 is {-}.", "110"),
        ("All steps before Step 3 are {+}, but Step 3 is {-}.", "110"),
        ("Up to step 2, everything is {+}. Step 3 is {-}.", "110"),
        ("Before step 3 everything is {+}. Step 3 is {-}.", "110"),
        ("All steps after step 1 are {-}; step 1 is {+}.", "100"),
        ("From step 2 on, all steps are {-}; step 1 is {+}.", "100"),
        ("Everything from step 2 is {-}; step 1 is {+}", "100"),
    ],
)
def test_bounds_and_several_numbers(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Step 2 is {-}; the others are {+}.", "100"),
        ("Step 3 is {-}; all other steps are {+}.", "110"),
        ("Step 3 is {-}; all the other steps are {+}.", "110"),
        ("Step 3 is {-}; every other step is {+}.", "110"),
        ("Step 3 is {-}. The remaining steps are {+}.", "110"),
        ("Step 3 is {-}. The rest of the steps are {+}.", "110"),
        ("Step 3 is {-}; the other two are {+}.", "110"),
        ("Step 3 is {-}; the other two steps are {+}.", "110"),
        ("Only step 3 is {-}, everything else is {+}.", "110"),
        ("All steps except step 3 are {+}.", "11?"),
        ("All steps but step 3 are {+}. Step 3 is {-}.", "110"),
        ("All steps, except for step 3, are {+}. Step 3 is {-}.", "110"),
        ("All but the last step are {+}; the last step is {-}.", "110"),
        ("Every step besides step 3 is {+}; step 3 is {-}.", "110"),
        ("All steps are {+} except step 3, which is {-}.", "110"),
        ("All steps are {+} but step 3 is {-}.", "110"),
        ("<+++>\n\nLet me double check\n\nStep 3 is {-}; the others are {+}.", "110"),
        ("<--+>\n\nLet me double check\n\nStep 3 is {-}; the others are {+}.", "110"),
        ("None of the steps is {-}.", "111"),
        ("None of the previous steps is {-}, but step 3 is {-}.", "110"),
        ("No step is {-}.", "111"),
        ("Step 3 is {-}; no other step is {-}.", "110"),
        ("Not all steps are {+}. Step 1: {+} Step 2: {-}", "10"),
    ],
)
def test_the_others_all_but_one_and_none(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("<+-+>\n\nAll steps are {+}.", "111"),  # the last verdict stands
        ("All steps are {+}. No, wait: step 2 is {-}.", "100"),
        ("<+++>\n\nLet me double check\n\nAll previous steps are {+}, but step 3 is {-}.", "110"),
        ("<+->\n\nLet me double check\n\nAll the above steps are {+}.", "11"),
        ("<++>\n\nAll previous steps are {+}. So the whole solution is {-}.", "11"),
        ("<+->\n\nOverall, not every step is fine, so the solution is {-}", "10"),
        ("<+->\n\nAll steps are there, and so the solution is {+}.", "10"),
        # A group that helps is no subject.
        ("Step 1: {+}\nStep 2: This follows from all previous steps. {-}", "10"),
        ("Step 1: {+}\nStep 2: consistent with the previous steps: {-}", "10"),
        ("Step 1: {+}\nStep 2: as in the previous steps, the step is {-}", "10"),
        ("Step 1: {+}\nStep 2: All previous steps were used here, so the step is {-}", "10"),
        ("Step 1: {+}\nStep 2: Unlike the earlier steps, this is {-}", "10"),
        ("Step 1: {+}\nStep 2: It relies on all earlier steps; {-}", "10"),
        ("Step 1: {+}\nStep 2: There is no step 3. It is {-}", "10"),
        ("Step 1: {+}\nStep 2: the following steps are taken: add, halve. {-}", "10"),
        ("I verify all steps one by one. Step 1: {+} Step 2: {-}", "10"),
        ("Step 1: 5 - 3 = 2 {+}\nStep 2-3x = 5: {-}", "10"),
        ("I agree with the steps, but step 3 is {-}.", "??0"),
        ("We accept all steps, but step 3 is {-}. Step 1 is {+}. Step 2 is {+}", "110"),
        ("All steps are {+}, but step 3 could be clearer.", "111"),
        ("<++>\n\nThe previous steps gave x = 2, so that 4 is {+}. Step 1 is {-}.", "00"),
        ("Step 1: {+}\nStep 2: From Step 1, all terms are positive, so {-}", "10"),
        ("All steps from step 1 to step 3 are {+}.", "111?"),
        ("From step 1 to step 3 everything is {+}.", "111?"),
        ("No step is skipped. Step 1: {+} Step 2: {-}", "10"),
    ],
)
def test_a_group_takes_nothing_from_a_single_step(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("前面的步骤都\\boxed{正确}，但第三步\\boxed{错误}。", "110"),
        ("前面所有步骤均\\boxed{正确}，第3步\\boxed{错误}。", "110"),
        ("之前的步骤都是\\boxed{正确}的，但步骤3\\boxed{错误}。", "110"),
        ("前几步都\\boxed{正确}，第三步\\boxed{错误}。", "110"),
        ("以上步骤均\\boxed{正确}。", "111"),
        ("步骤1到3都\\boxed{正确}，步骤4\\boxed{错误}。", "1110"),
        ("步骤1至步骤3都\\boxed{正确}，步骤4\\boxed{错误}。", "1110"),
        ("第1步到第3步\\boxed{正确}，第4步\\boxed{错误}。", "1110"),
        ("第一步到第三步都\\boxed{正确}，第四步\\boxed{错误}。", "1110"),
        ("前三步都\\boxed{正确}，第四步\\boxed{错误}。", "1110"),
        ("后两步\\boxed{错误}，第一步\\boxed{正确}。", "100"),
        ("第三步\\boxed{错误}，其余步骤\\boxed{正确}。", "110"),
        ("第三步\\boxed{错误}，其他步骤都\\boxed{正确}。", "110"),
        ("第三步\\boxed{错误}，剩下的步骤都\\boxed{正确}。", "110"),
        ("除第三步外，其余步骤都\\boxed{正确}，第三步\\boxed{错误}。", "110"),
        ("除了步骤3，所有步骤都\\boxed{正确}，步骤3\\boxed{错误}。", "110"),
        ("第3步之前的步骤都\\boxed{正确}，第3步\\boxed{错误}。", "110"),
        ("第三步之前都\\boxed{正确}，第三步\\boxed{错误}。", "110"),
        ("第一步\\boxed{正确}，后面的步骤都\\boxed{错误}。", "100"),
        ("第一步\\boxed{正确}，后续步骤\\boxed{错误}。", "100"),
        ("每一步都\\boxed{正确}。", "111"),
        ("所有步骤都\\boxed{正确}。", "111"),
        ("并非所有步骤都\\boxed{正确}。第一步\\boxed{正确}，第二步\\boxed{错误}。", "10"),
        ("第一步：由前面的步骤可知，\\boxed{正确}\n第二步：\\boxed{错误}", "10"),
    ],
)
def test_groups_in_chinese(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("So far everything is {+}, but step 3 is {-}.", "110"),
        ("So far, all steps are {+}. But step 3 is {-}.", "110"),
        ("All the steps before this one are {+}. Step 4 is {-}.", "1110"),
        ("The steps leading up to step 3 are {+}. Step 3 is {-}.", "110"),
        ("Steps prior to step 3 are {+}; step 3 is {-}", "110"),
        ("Every step up to step 2 is {+}. Step 3 is {-}", "110"),
        ("Apart from step 3, all steps are {+}.", "11?"),
        ("With the exception of step 3, every step is {+}. Step 3 is {-}.", "110"),
        ("{+} for all previous steps, {-} for step 3.", "110"),
        ("{+} for the first two steps; {-} for the last step", "110"),
        ("I judge all previous steps {+} and step 3 {-}.", "110"),
        ("I consider steps 1 to 2 to be {+} and step 3 to be {-}.", "110"),
        ("<+-+>\n\nSummary: the first step is {+}, the others are {-}.", "100"),
        ("<++->\n\nThus, all previous steps are {+}, and step 3 is {-}.", "110"),
        (
            "Step 1: {+}\nStep 2: {+}\nStep 3: Since all previous steps are {+}, we look at this one. It is {-}.",
            "110",
        ),
        ("Step 1: {+}\nStep 2: {+}\nStep 3: The earlier steps hold, but here 2*3 = 7 is wrong. {-}", "110"),
        ("Step 1: {+}\nStep 2: {+}\nStep 3: All previous steps led to x = 2. Now 2x = 5? {-}", "110"),
        ("Step 1: a\n{+}\nStep 2: b\nThe previous step is {+}, but this step is {-}", "10"),
        ("到第二步为止都\\boxed{正确}，第三步\\boxed{错误}", "110"),
        ("从第二步开始都\\boxed{错误}，第一步\\boxed{正确}", "100"),
        ("前两个步骤\\boxed{正确}，第三个步骤\\boxed{错误}", "110"),
    ],
)
def test_further_groups(text, labels):
    assert labels_of(chain_of(text), len(labels)) == labels
