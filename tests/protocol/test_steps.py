"""Splitting free solution text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.protocol.prompts import strip_step_label
from thinkprm_jax.protocol.steps import split_solution


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1: a = 2\nStep 2: b = 3", ["a = 2", "b = 3"]),
        ("## Step 1: Add\n2 + 2 = 4\n\n## Step 2\nDouble it", ["Add\n2 + 2 = 4", "Double it"]),
        ("**Step 1:** a\n\n**Step 2**: b\n**Step 3: Title** c", ["a", "b", "Title c"]),
        ("Step 1. a\nStep 2. b", ["a", "b"]),
        ("step 1 - a\nstep 2 – b", ["a", "b"]),
        ("Step 1: a\r\nStep 2: b\r\n", ["a", "b"]),
        ("Let us see.\nStep 1: a\nStep 2: b", ["Let us see.\n\na", "b"]),
        (
            "Step 1: a, by Step 2 below\nStep 3 is no label\nStep 2: b",
            ["a, by Step 2 below\nStep 3 is no label", "b"],
        ),
        ("1. a\n2. b\n3. c", ["a", "b", "c"]),
        ("1) a\n2) b", ["a", "b"]),
        ("We do:\n1. a\n2. b", ["We do:\n\na", "b"]),
        ("**1.** a\n**2.** b", ["a", "b"]),
        ("1. a\n\nmore\n\n2. b\n\nmore\n\nand more", ["a\n\nmore", "b\n\nmore\n\nand more"]),
        ("a\n\nb\n \n\nc", ["a", "b", "c"]),
        ("a\nb", ["a\nb"]),
        ("  one line  ", ["one line"]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_layouts(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("We have x = 1.\n3. The rest follows\nfrom symmetry.", 1),  # a number that starts no list
        ("So 2. is out\n\nIt is\n3.5 in all.", 2),
        ("Step 2: a\nStep 3: b", 1),  # does not begin at 1
        ("Let\n1. a = 1\n2. b = 2\n\nThen a + b = 3.\n\nSo a < b.\n\nDone.", 4),  # a list inside
        ("As drawn:\n\n[asy]\ndraw(a);\n\ndraw(b);\n[/asy]\n\nSo x = 2.", 3),
        ("Run\n\n```\na\n\nb\n```\n\nEnd", 3),
    ],
)
def test_what_is_no_boundary(text, count):
    assert len(split_solution(text)) == count


def test_numbers_out_of_order_stay_in_the_step():
    text = "Step 1: a\nStep 2: b\nStep 1: again\nStep 3: c"
    assert split_solution(text) == ["a", "b\nStep 1: again", "c"]


def test_strip_step_label():
    assert strip_step_label("Step 12: x = 1") == "x = 1"
    assert strip_step_label("Step 1:x") == "x"
    assert strip_step_label("Stepping 1: x") == "Stepping 1: x"
    assert strip_step_label("x. Step 1: y") == "x. Step 1: y"


@given(st.text(alphabet="a1 2.)\n#*:Step -", max_size=80))
def test_splitting_keeps_the_text(text):
    steps = split_solution(text)
    assert all(step and step == step.strip() for step in steps)
    assert bool(steps) or not text.replace("*", "").strip() or "1" in text
    assert sum(map(len, steps)) <= len(text) + 2


@given(st.lists(st.text(alphabet="abc xyz=+", min_size=1).filter(str.strip), min_size=1, max_size=9))
def test_labelled_steps_come_back(steps):
    text = "\n".join(f"Step {i}: {step}" for i, step in enumerate(steps, start=1))
    assert split_solution(text) == [step.strip() for step in steps]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step 1：a\nStep 2：b", ["a", "b"]),
        ("- Step 1: a\n- Step 2: b", ["a", "b"]),
        ("* **Step 1:** a\n* **Step 2:** b", ["a", "b"]),
        ("Step #1: a\nStep #2: b", ["a", "b"]),
        ("[Step 1] a\n[Step 2] b", ["a", "b"]),
        ("[Step 1]: a\n[Step 2]: b", ["a", "b"]),
        ("Step 1 of 2: a\nStep 2 of 2: b", ["a", "b"]),
        ("Step 1/2: a\nStep 2/2: b", ["a", "b"]),
        ("步骤1：a\n步骤2：b", ["a", "b"]),
        ("步骤 1: a\n步骤 2: b", ["a", "b"]),
        ("第一步：a\n第二步：b", ["a", "b"]),
        ("第一步，设x\n第二步，解", ["设x", "解"]),
        ("Step one: a\nStep two: b", ["a", "b"]),
        ("\\textbf{Step 1:} a\n\\textbf{Step 2:} b", ["a", "b"]),
        ("\\textbf{Step 1: Title} a\n\\textbf{Step 2.} b", ["Title a", "b"]),
        ("Step 1 (add): a\nStep 2 (halve): b", ["(add): a", "(halve): b"]),
        (
            "Case 1\n\nStep 1: a\nStep 2: b\n\nCase 2\n\nStep 1: c\nStep 2: d",
            ["Case 1", "a", "b\n\nCase 2", "c", "d"],
        ),
        ("一、设x\n二、解y", ["设x", "解y"]),
        ("> Step 1: a\n> Step 2: b", ["a", "b"]),
        ("1. Step 1: a\n2. Step 2: b", ["a", "b"]),
        ("Step 0: set\nStep 1: go", ["set", "go"]),
        ("Stepping 1: no", ["Stepping 1: no"]),
        ("Step 3 is no label", ["Step 3 is no label"]),
        ("**Step 1**: a\n\n**Step 2**\n\nb", ["a", "b"]),
        ("Step 1: x\n\n\\[\na\n\nStep 2: inside\n\\]\n\nStep 2: y", ["x\n\n\\[\na\n\nStep 2: inside\n\\]", "y"]),
        ("*Step 1:* a\n*Step 2:* b", ["a", "b"]),
        ("*Step 1: Title* a\n*Step 2:* 2*3*4", ["Title a", "2*3*4"]),
        ("\\section*{Step 1: Set up}\na\n\n\\section*{Step 2}\nb", ["Set up\na", "b"]),
        ("Step-1: a\nStep-2: b", ["a", "b"]),
        ("Step 1 -> a\nStep 2 → b", ["a", "b"]),
        ("Step 1\n\na\n\nStep 2\n\nb", ["a", "b"]),
        ("### Step 1: A\nx\n\n### Step 2: B\ny\n\n### Answer\n5", ["A\nx", "B\ny", "### Answer\n5"]),
        ("**Step 1：** a\n**Step 2：** b", ["a", "b"]),
        ("**步骤1：** a\n\n**步骤2：** b", ["a", "b"]),
        ("**第一步**：a\n\n**第二步**：b", ["a", "b"]),
        ("第1步: a\n第2步: b", ["a", "b"]),
        ("【第一步】a\n【第二步】b", ["a", "b"]),
        ("Step 1 of 3: a\nStep 2 of 3: b\nStep 3 of 3: c", ["a", "b", "c"]),
        ("(Step 1) a\n(Step 2) b", ["a", "b"]),
        ("[Step 1]\na\n\n[Step 2]\nb", ["a", "b"]),
        ("Step #1\na\nStep #2\nb", ["a", "b"]),
        ("Step No. 1: a\nStep No. 2: b", ["a", "b"]),
        ("+ Step 1: a\n+ Step 2: b", ["a", "b"]),
        ("  - **Step 1**: a\n  - **Step 2**: b", ["a", "b"]),
        ("Step 1: code\n```\nx\n\nStep 2: in\n```\nStep 2: b", ["code\n```\nx\n\nStep 2: in\n```", "b"]),
        ("Step 1: a\n\n1. x\n2. y\n\nStep 2: b", ["a\n\n1. x\n2. y", "b"]),
        ("Step 1\xa0: a\nStep 2\xa0: b", ["a", "b"]),
        ("Step\xa01: a\nStep\xa02: b", ["a", "b"]),
        ("\ufeffStep 1: a\nStep 2: b", ["a", "b"]),
        ("Step 1 | a\nStep 2 | b", ["a", "b"]),
    ],
)
def test_labels_in_every_usual_form(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1. First:\n   1. a\n   2. b\n2. Second", ["First:\n   1. a\n   2. b", "Second"]),
        ("1. First:\n1) a\n2) b\n2. Second\n3. Third", ["First:\n1) a\n2) b", "Second", "Third"]),
        ("**1. Set**\n1. a\n2. b\n\n**2. Go**\nx", ["Set\n1. a\n2. b", "Go\nx"]),
        (
            "Case 1: x > 0\n1. a\n2. b\n\nCase 2: x < 0\n1. c\n2. d",
            ["Case 1: x > 0\n1. a\n2. b", "Case 2: x < 0\n1. c\n2. d"],
        ),
        (
            "### 1. Set up\nText a.\n\nMore.\n\n### 2. Solve\nText b.",
            ["Set up\nText a.\n\nMore.", "Solve\nText b."],
        ),
        ("### 1. Set up\n\nText a.\n\n### 2. Solve\n\nText b.", ["Set up\n\nText a.", "Solve\n\nText b."]),
        (
            "1. Find x.\n2. Find y.\n\nWe have x = 2 and so y = 3.",
            ["Find x.", "Find y.", "We have x = 2 and so y = 3."],
        ),
        (
            "1. Find x.\n\n2. Find y.\n\nWe have x = 2.\n\nSo y = 3.",
            ["Find x.", "Find y.", "We have x = 2.", "So y = 3."],
        ),
        ("1. a\n\n   more\n\n2. b\n\n   more", ["a\n\n   more", "b\n\n   more"]),
        ("1. a\n\nmore\n\n2. b\n\nmore\n\nand more", ["a\n\nmore", "b\n\nmore\n\nand more"]),
        (" 9. x\n10. y", ["9. x\n10. y"]),
        ("## Solution\n\nx = 1\n\n## Answer\n\n1", ["## Solution", "x = 1", "## Answer", "1"]),
        ("1\\. a", ["1\\. a"]),
        ("1. First\n\n   a) x\n\n   b) y\n\n2. Second", ["First\n\n   a) x\n\n   b) y", "Second"]),
        ("## Case 1\n1. a\n2. b\n\n## Case 2\n1. c\n2. d", ["## Case 1\n1. a\n2. b", "## Case 2\n1. c\n2. d"]),
        ("1、设x\n2、解y", ["设x", "解y"]),
        ("1. a\n2. b\n3. c\n\n\\boxed{5}", ["a", "b", "c", "\\boxed{5}"]),
        ("* a\n* b", ["* a\n* b"]),
        ("1. Set up:\n- x = 1\n- y = 2\n2. Solve:\n- z = 3", ["Set up:\n- x = 1\n- y = 2", "Solve:\n- z = 3"]),
        ("1. Set up:\n\n- x = 1\n\n2. Solve:\n\n- z = 3", ["Set up:\n\n- x = 1", "Solve:\n\n- z = 3"]),
        ("1. First\n\t1. a\n\t2. b\n2. Second", ["First\n\t1. a\n\t2. b", "Second"]),
        ("1. First\n  a. x\n  b. y\n2. Second", ["First\n  a. x\n  b. y", "Second"]),
        ("Part A\n\n1. a\n2. b\n\nPart B\n\n1. c\n2. d", ["Part A", "1. a\n2. b", "Part B", "1. c\n2. d"]),
        ("Case I:\n1. a\n2. b\nCase II:\n1. c\n2. d", ["Case I:\n1. a\n2. b\nCase II:\n1. c\n2. d"]),
        ("#### 1. A\n\nx\n\n#### 2. B\n\ny\n\n#### 3. C\n\nz", ["A\n\nx", "B\n\ny", "C\n\nz"]),
        ("## 1) A\nx\n## 2) B\ny", ["A\nx", "B\ny"]),
        ("### **1. A**\nx\n\n### **2. B**\ny", ["A\nx", "B\ny"]),
        (
            "Let x be:\n\n\\begin{cases}\nx\n\ny\n\\end{cases}\n\nThen z.",
            ["Let x be:", "\\begin{cases}\nx\n\ny\n\\end{cases}", "Then z."],
        ),
        (
            "a\n\n\\begin{align*}\n1 &= 1\n\n2 &= 2\n\\end{align*}\n\nb",
            ["a", "\\begin{align*}\n1 &= 1\n\n2 &= 2\n\\end{align*}", "b"],
        ),
        ("a\n\n~~~\nx\n\ny\n~~~\n\nb", ["a", "~~~\nx\n\ny\n~~~", "b"]),
        ("1. code\n```\nx\n2. in\n```\n2. b", ["code\n```\nx\n2. in\n```", "b"]),
        ("$$a\n\nb$$\n\nc", ["$$a\n\nb$$", "c"]),
        ("\\[\na\n\nb\n\\] text\n\nc", ["\\[\na\n\nb\n\\] text", "c"]),
        (
            "Plan:\n1. Find x\n2. Find y\n\nFirst, x = 2 since 2x = 4.",
            ["Plan:\n\nFind x", "Find y", "First, x = 2 since 2x = 4."],
        ),
        (
            "Plan:\n1. Find x\n2. Find y\n\nFirst, x = 2.\n\nThen y = 3.",
            ["Plan:\n1. Find x\n2. Find y", "First, x = 2.", "Then y = 3."],
        ),
        ("x = 1\ny = 2\nz = 3", ["x = 1\ny = 2\nz = 3"]),
        ("3. c\n4. d", ["3. c\n4. d"]),
        ("It costs\n1.5 dollars\n2.5 dollars", ["It costs\n1.5 dollars\n2.5 dollars"]),
        ("step 1: a\n\nstep 2: b", ["a", "b"]),
    ],
)
def test_lists_and_headings_that_are_the_solution_and_such_as_are_not(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\n\\[\nx = 1\n\ny = 2\n\\]\n\nb", ["a", "\\[\nx = 1\n\ny = 2\n\\]", "b"]),
        ("a\n$$\nx\n\ny\n$$\n\nb", ["a\n$$\nx\n\ny\n$$", "b"]),
        ("a\n\\begin{align}\nx\n\ny\n\\end{align}\n\nb", ["a\n\\begin{align}\nx\n\ny\n\\end{align}", "b"]),
        ("a\n```python\nx\n\n1. y\n```\n\nb", ["a\n```python\nx\n\n1. y\n```", "b"]),
        ("a\n$$x$$ and $ $$ lone\n\nb", ["a\n$$x$$ and $ $$ lone", "b"]),
        ("a \\[ lone\n\nb\n\n\\[ x \\]\n\nc", ["a \\[ lone", "b", "\\[ x \\]", "c"]),
        ("x \\\\[2pt] y\n\nb \\]\n\nc", ["x \\\\[2pt] y", "b \\]", "c"]),
    ],
)
def test_formulas_environments_and_code_stay_whole(text, steps):
    assert split_solution(text) == steps


STEPS = st.one_of(
    st.text(alphabet="abc xyz=+.").map("x".__add__),
    st.sampled_from(
        [
            "We have x = 1.\nSo y = 2.",
            "\\[\nx = 1\n\ny = 2\n\\]",
            "$$\na\n\nb\n$$",
            "Then\n\\begin{align*}\na &= b\n\n\\end{align*}",
            "```python\nprint(1)\n\nprint(2)\n```",
            "By the step above, 1.5 + 2 = 3.5",
            "So\n- a\n- b",
            "因此 x = 2。",
        ]
    ),
)
LABELS = ["Step {}: ", "**Step {}:** ", "## Step {}\n", "步骤{}：", "[Step {}] "]
PIECES = [
    *(" ", "> ", "#", "Step 1: a\n", "1. a\n\n", "a\n\n", "\\[", "$$ ", "\\begin{align}", "```\n", "\n"),
    *("<b> ", "<b>Step 1</b> ", "(1) ", "(1) a\n"),
]


@given(st.lists(STEPS, min_size=1, max_size=9))
def test_paragraphs_come_back(steps):
    assert split_solution("\n\n".join(steps)) == [step.strip() for step in steps]


@given(st.lists(STEPS, min_size=1, max_size=9), st.sampled_from(LABELS))
def test_steps_come_back_from_behind_every_label(steps, label):
    text = "\n".join(label.replace("{}", str(number)) + step for number, step in enumerate(steps, start=1))
    assert split_solution(text) == [step.strip() for step in steps]


def test_time_is_linear_in_labels_and_blank_lines():
    start = time.process_time()
    for form in ("Step {}: a\n\n", "{}. a\n\n", "({}) a\n\n", "## {}. a\n\nb\n\n"):
        assert len(split_solution("".join(form.format(number) for number in range(1, 4000)))) == 3999
    assert time.process_time() - start < 2


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(piece):
    start = time.process_time()
    split_solution("x" + piece * (40_000 // len(piece)))
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Step #1 Let x be 3.\nStep #2 So 6.", ["Let x be 3.", "So 6."]),
        ("Step (1): a\nStep (2): b", ["a", "b"]),
        ("Step (1)\na\nStep (2)\nb", ["a", "b"]),
        ("Step (1) gives 2.\nStep (2) gives 3.", ["Step (1) gives 2.\nStep (2) gives 3."]),
        ("Step 1 gives 2.\nStep 2 gives 3.", ["Step 1 gives 2.\nStep 2 gives 3."]),
    ],
)
def test_labels_with_a_number_sign_or_a_number_in_brackets(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Let us see.\n\nStep 1: a\nStep 2: b", ["Let us see.", "a", "b"]),
        ("Given.\n\nWe plan:\n\nStep 1: a\n\nStep 2: b", ["Given.", "We plan:", "a", "b"]),
        ("Given.\n\nWe plan:\nStep 1: a\n\nStep 2: b", ["Given.", "We plan:\n\na", "b"]),
        ("Step 1: a\n\nStep 2: b\n\nSo 8.", ["a", "b", "So 8."]),
        ("Step 1: a\n\nStep 2: b\n\nSo 8.\n\nDone.", ["a", "b", "So 8.", "Done."]),
        ("Step 1: a\n\nSo 8.", ["a", "So 8."]),
        # Steps that are lines: blank lines stand inside of them.
        ("Step 1: a\nStep 2: b\n\n# Answer\n\n8", ["a", "b\n\n# Answer\n\n8"]),
        ("Step 1: a\n\nStep 2: b\n\n# Answer\n\n8", ["a", "b\n\n# Answer\n\n8"]),
        ("Step 1: a\n\nStep 2: b\n\nSo.\n\n**Final Answer:**\n\n8", ["a", "b", "So.\n\n**Final Answer:**\n\n8"]),
        ("Step 1: a\n\nStep 2: b\n\n# Answer\n8", ["a", "b", "# Answer\n8"]),
        # Other steps have several paragraphs.
        ("Step 1: a\n\nmore\n\nStep 2: b\n\nSo 8.", ["a\n\nmore", "b\n\nSo 8."]),
        ("## Step 1: A\n\nx\n\n## Step 2: B\n\ny", ["A\n\nx", "B\n\ny"]),
        ("Step 1\n\na\n\nStep 2\n\nb\n\nSo 8.", ["a", "b", "So 8."]),
        ("Step 1: a\n\nStep 2: b\n\n   more", ["a", "b\n\n   more"]),
        ("Step 1: \n\na\n\nStep 2: \n\nb\n\nSo 8.", ["a", "b", "So 8."]),
        ("Step 1: a\n\nStep 2: b\n\n\\[\nx\n\ny\n\\]\n\nSo.", ["a", "b", "\\[\nx\n\ny\n\\]", "So."]),
        (
            "### A\n\nStep 1: a\n\nStep 2: b\n\n### B\n\nStep 1: c\n\nStep 2: d\n\nSo 8.",
            ["### A", "a", "b", "### B", "c", "d", "So 8."],
        ),
        (
            "First:\n- Step 1: a\n- Step 2: b\n\nThen:\n- Step 1: c\n- Step 2: d\n\nSo 8.",
            ["First:\n- Step 1: a\n- Step 2: b", "Then:\n- Step 1: c\n- Step 2: d", "So 8."],
        ),
        ("We do:\n\n1. a\n2. b", ["We do:", "a", "b"]),
        ("### 1. A\nx\n\n### 2. B\ny\n\nSo 8.", ["A\nx", "B\ny", "So 8."]),
    ],
)
def test_paragraphs_around_the_labels(text, steps):
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("(1) Add them.\n(2) Halve it.", ["Add them.", "Halve it."]),
        ("（1）先求和。\n（2）再取半。", ["先求和。", "再取半。"]),
        ("(一)先求和。\n(二)再取半。".replace("(", "（").replace(")", "）"), ["先求和。", "再取半。"]),
        ("(1) Add.\n\nSo 4.\n\n(2) Halve.\n\nSo 2.", ["Add.\n\nSo 4.", "Halve.\n\nSo 2."]),
        ("**(1)** Add.\n**(2)** Halve.", ["Add.", "Halve."]),
        ("(1) Add.\n(2) By (1) we halve 4.", ["Add.", "By (1) we halve 4."]),
        ("（1）由题设得。\n（2）由（1）知。", ["由题设得。", "由（1）知。"]),
        ("We do:\n(1) Add.\n(2) Halve.", ["We do:\n\nAdd.", "Halve."]),
        ("1. First:\n(1) a\n(2) b\n2. Second", ["First:\n(1) a\n(2) b", "Second"]),
        ("### (1) Set up\nx\n\n### (2) Solve\ny", ["Set up\nx", "Solve\ny"]),
        # equations and their names, and what begins a line by chance
        ("We have\n(1) $x+y=3$\n(2) $x-y=1$\nBy (1) and (2), x = 2.",) * 2,
        ("(1) x + y = 3\n(2) x - y = 1\n(1) + (2) gives 2x = 4.",) * 2,
        ("Adding (1) and\n(2) gives 4.",) * 2,
        ("So f is\n(1) even.",) * 2,
        ("$$\n(1) x\n(2) y\n$$",) * 2,
        ("We get f(1)\n= 2 and f(2)\n= 3.",) * 2,
        ("It is 2\n(3)(4)\n= 24",) * 2,
    ],
)
def test_numbers_in_brackets(text, steps):
    assert split_solution(text) == ([steps] if isinstance(steps, str) else steps)


@pytest.mark.parametrize(
    "form",
    [
        "<b>Step {}:</b> {}",
        "<b>Step {}</b>: {}",
        "<b>Step {}</b> {}",
        "<strong>Step {}.</strong> {}",
        "<STRONG>Step {}:</STRONG> {}",
        "<p><b>Step {}:</b> {}</p>",
        "<p>Step {}: {}</p>",
        "<h3>Step {}</h3>\n{}",
        '<span style="color: red">Step {}:</span> {}',
        "<em>Step {}:</em> {}",
        "<u>Step {}</u>: {}",
        "<li>Step {}: {}</li>",
        "<li><strong>Step {}:</strong> {}</li>",
        "<b>Step {}:</b><br>\n{}",
        "<b>Step {}</b><br/>\n{}",
        "**Step {}.** {}",
        "**Step {}** {}",
        "__Step {}__ {}",
        "***Step {}:*** {}",
        "_Step {}:_ {}",
        "_Step {}_\n{}",
        "__Step {}:__ {}",
        "__Step {}__\n{}",
        "### Step {}\n{}",
        "###Step {}: {}",
        "### **Step {}** {}",
        "`Step {}`: {}",
        "\\textbf{{Step {}.}} {}",
        "\\textbf{{Step {}}} {}",
        "\\noindent\\textbf{{Step {}:}} {}",
        "\\item Step {}: {}",
        "{{\\bf Step {}:}} {}",
        "Step {}\\. {}",
        "Step \\#{}: {}",
        "{}\\. {}",
        "{}\\) {}",
        "**{}\\.** {}",
        "<b>{}.</b> {}",
        "<p>{}. {}</p>",
        "### {}\\. {}",
        "<h3>{}. A</h3>\n{}",
    ],
)
def test_wrapped_labels(form):
    title = "A\n" if ". A<" in form else ""
    steps = [title + "we add 1 < 2", title + "so x^2 = **4** and _5_."]
    plain = (step.removeprefix(title) for step in steps)
    text = "\n\n".join(form.format(number, step) for number, step in enumerate(plain, start=1))
    assert split_solution(text) == steps


@pytest.mark.parametrize(
    "text",
    [
        "**Step 2** gives 3, as **Step 1** gives 2.",
        "*Step 1* gives 2.\n*Step 2* gives 3.",
        "<b>Step 3</b> is last",
        "1\\. a",
        "<i>x</i> = Step 1: a",
        "`Step 1` is run first.\n`Step 2` is run then.",
    ],
)
def test_what_is_set_off_in_a_sentence(text):
    assert split_solution(text) == [text]
