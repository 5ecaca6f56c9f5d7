"""How chains name steps and say what they think of them: the patterns of :mod:`.reading`, English and Chinese.

Every repetition has an upper bound, or repeats what can be read in one way only: no text takes more than linear
time.
"""

from __future__ import annotations

import re

_I, _IM = re.IGNORECASE, re.IGNORECASE | re.MULTILINE


def _any(text: str) -> str:
    """A pattern for any of the words, the longest first; `_` is a blank between two of them."""
    words = sorted(text.split(), key=len, reverse=True)
    return "(?:" + "|".join(word.replace("_", r"[ \t]{1,3}") for word in words) + ")"


# --- numbers

_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ROMAN = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX"
_ZH = "一二三四五六七八九"
_ZH_TENS = ["", "十", *(ten + "十" for ten in _ZH)]
# Numbers in words, Roman ones in capitals.
NUMBER_WORDS: dict[str, int] = {
    **{word: number for words in (_ONES, _ORDINALS, _ROMAN) for number, word in enumerate(words.split(), start=1)},
    **{tens + ones: 10 * max(row - (row > 1), 0) + number for row, tens in enumerate(_ZH_TENS) for number, ones in
       enumerate(["", *_ZH]) if tens or ones},
    "两": 2,
}  # fmt: skip

_WORD_NUM = rf"\d{{1,6}}|{_any(_ONES)}"
_NUM = rf"(?:{_WORD_NUM}|(?-i:[IVX]{{1,5}}(?=[ \t]?[:.)\]：])))"
_ZH_NUM = rf"(?:\d{{1,6}}|[{_ZH}十两]{{1,3}})"
NUMBERS = re.compile(
    rf"(?P<number>{_WORD_NUM}|{_any(_ORDINALS)}|last|final|(?-i:[IVX]{{1,5}})|{_ZH_NUM})(?:\.\d{{1,3}}){{0,3}}", _I
)
LAST = ("last", "final")
RANGE = re.compile(r"[-–—~至到]|\bto\b|through", _I)

# --- names of steps

_STEP = r"(?:step|paragraph|para)"
_SIGN = r"(?:\\?\#|no\.?|numbers?|№)?"
_JOINED = r"[ \t]{0,3}(?:,[ \t]{0,3}and|[，、,&–—~与及至到和-]|and|to|through)[ \t]{0,3}"
_ZH_JOINED = r"[ \t]{0,3}步?[骤驟]?(?:[、，,和与及至到~-]|以及)[ \t]{0,3}第?[ \t]{0,3}"
_ORDINAL = rf"(?:{_any(_ORDINALS)}|\d{{1,4}}(?:st|nd|rd|th)|{_any('last final next previous preceding')})"
_ONE_ORDINAL = rf"(?:{_any(_ORDINALS)}|\d{{1,4}}(?:st|nd|rd|th)|last|final)"
_OTHER_STEPS = rf"(?:,[ \t]{{1,3}}{_STEP}[ \t]{{1,3}}{_NUM}){{0,20}},?[ \t]{{1,3}}(?:and|&)[ \t]{{1,3}}"
_TO_STEP = (
    rf"[ \t]{{1,3}}(?:to|through)[ \t]{{1,3}}{_STEP}[ \t]{{1,3}}{_NUM}(?![\w^])"
    rf"|[-–—~](?:{_STEP}[ \t]{{1,3}})?\d{{1,6}}(?![\w^.*/+=-]|[ \t]{{0,3}}[=+*/])"
)

# Groups: the words that say which steps are meant, from where the text stands.
_ZH_SOME = rf"的?(?:所有|全部|各个?|每一?个?|几个?|(?P<few_zh>{_ZH_NUM})个?)?的?"
_GROUPS = {
    "BEFORE": "previous preceding earlier prior foregoing former aforementioned past "
              "before_this(?:_one|_step)? before_that(?:_one|_step)? before_it 前面 之前 以前 先前 此前 前述 前",
    "SO_FAR": "above so_far up_to_here up_to_now up_to_this_point until_here until_now 上述 以上",
    "AFTER": "later subsequent following succeeding ensuing next below after_this(?:_one|_step)? thereafter "
             "after_that(?:_one|_step)? after_it that_follows? from_here_on 后面 之后 以后 后续 随后 此后 接下来",
    "REST": "other remaining 其余 其他 其它 剩下 剩余 余下",
}  # fmt: skip
_WHICH = _any(
    "previous preceding earlier prior foregoing former aforementioned past above later subsequent following "
    "succeeding ensuing next other remaining"
)
_BEHIND = _any(
    "above so_far up_to_here up_to_now up_to_this_point until_here until_now below thereafter that_follows? "
    "from_here_on before_this(?:_one|_step)? before_that(?:_one|_step)? before_it "
    "after_this(?:_one|_step)? after_that(?:_one|_step)? after_it"
)
_EARLY = _any("so_far up_to_here up_to_now up_to_this_point until_here until_now")
_ZH_WHICH = _any(
    "前面 之前 以前 先前 此前 前述 上述 以上 后面 之后 以后 后续 随后 此后 接下来 其余 其他 其它 剩下 剩余 余下"
)
_ALL_OF = r"(?:(?:all|both|each|every[ \t]one)[ \t]{1,3}(?:of[ \t]{1,3})?)"
_THE = r"(?:(?:the|these|those|our|its|all)[ \t]{1,3})"
_FEW = rf"(?:{_WORD_NUM}|few|several|couple[ \t]of)"
_NO_NUMBER = r"(?![A-Za-z]|[ \t]{0,3}[\#\d])"
_BUT = (
    r"(?:except|besides|other[ \t]than|apart[ \t]from|save|excluding|with[ \t]the[ \t]exception[ \t]of)"
    r"(?:[ \t]for)?"
)
_STEP_FOLLOWS = (
    rf"(?=(?:{_STEP}s?[ \t]{{0,3}}[\#(]?\d|{_STEP}[ \t]{{1,3}}{_WORD_NUM}|{_ORDINAL}[ \t]{{1,3}}{_STEP}))"
)
_ALL_STEPS = rf"(?:all|both|every|each)(?:[ \t]{{1,3}}(?:of|the|these|\w{{1,6}})){{0,3}}[ \t]{{1,3}}{_STEP}s?"

# A step by its number. Groups: `plural` (`Steps 1-3`), `single` (`Step 2`, `Step 1 and Step 2`), `ordinal`,
# `ordinals` (`the first and third steps`), `count` (`the first two steps`), `zh` (a number in Chinese). Several
# without one: `all`; in it `rest`, and `which...`, words of GROUPS. `bound`: `everything before`, then a step.
MENTION = re.compile(
    rf"(?<![A-Za-z])(?:"
    rf"{_STEP}s[ \t~]{{0,5}}{_SIGN}[ \t~]{{0,5}}"
    rf"(?P<plural>{_NUM}(?:{_JOINED}(?:{_STEP}[ \t]{{0,3}})?{_NUM}){{0,20}})"
    rf"|{_STEP}(?:[ \t~_-]{{0,5}}{_SIGN}[ \t~(]{{0,5}}|[\"']\s{{0,3}}:\s{{0,3}}[\"']?)(?P<single>{_NUM}"
    rf"(?:\.\d{{1,3}}){{0,3}}(?:{_OTHER_STEPS}(?:{_STEP}[ \t]{{1,3}})?{_NUM}(?![\w^])|{_TO_STEP})?)"
    r"(?:[ \t]{0,3}/[ \t]{0,3}\d{1,6}|[ \t]{1,3}of[ \t]{1,3}\d{1,6}\b)?"
    rf"|(?:(?:first|last)[ \t]{{1,3}}|前|头|后|最后)(?P<count>{_NUM}|{_ZH_NUM})"
    rf"(?:[ \t]{{1,3}}(?:of[ \t]{{1,3}}the[ \t]{{1,3}})?{_STEP}s|[ \t]{{0,3}}个?步[骤驟]?)"
    rf"|(?P<ordinals>{_ONE_ORDINAL}(?:{_JOINED}(?:the[ \t]{{1,3}})?{_ONE_ORDINAL}){{1,20}})"
    rf"[ \t]{{1,3}}{_STEP}s?(?![A-Za-z])"
    rf"|(?P<ordinal>{_ORDINAL}|上|下)(?:[ \t]{{1,3}}(?:and[ \t]{{1,3}}final[ \t]{{1,3}})?{_STEP}(?![A-Za-z])|一步)"
    rf"|(?P<bound>(?:{_ALL_STEPS}|{_THE}?{_STEP}s|everything|all),?[ \t]{{1,3}}"
    rf"(?:(?P<to>before|prior[ \t]to|preceding|leading[ \t](?:up[ \t])?to|until|ahead[ \t]of)"
    rf"|(?P<through>up[ \t]to(?:[ \t]and[ \t]including)?|through)|(?P<behind>after|following|past|beyond)"
    rf"|(?P<from>from|starting[ \t](?:from|at|with))|(?P<but>{_BUT}|(?<!,[ \t])but))"
    rf"[ \t]{{1,3}}(?:the[ \t]{{1,3}})?{_STEP_FOLLOWS})"
    rf"|(?P<all>{_ALL_OF}?{_THE}?(?:(?P<few>{_FEW})[ \t]{{1,3}})?(?P<which>{_WHICH})[ \t]{{1,3}}"
    rf"(?:(?P<fewer>{_FEW})[ \t]{{1,3}})?{_STEP}s{_NO_NUMBER}"
    rf"|(?:every|each|any)[ \t]{{1,3}}(?:single[ \t]{{1,3}})?(?P<which_one>{_WHICH})[ \t]{{1,3}}{_STEP}"
    rf"{_NO_NUMBER}"
    rf"|{_ALL_OF}?{_THE}?(?:{_STEP}s|everything)[ \t]{{1,3}}(?P<which_behind>{_BEHIND})(?![A-Za-z])"
    rf"|(?P<which_early>{_EARLY}),?[ \t]{{1,3}}(?:everything|{_ALL_OF}?{_THE}?{_STEP}s{_NO_NUMBER})"
    r"|(?P<none>(?:none|neither)[ \t]{1,3}of[ \t]{1,3}(?:the|these|those|our)[ \t]{1,3}"
    rf"(?:(?P<which_none>{_WHICH})[ \t]{{1,3}})?{_STEP}s{_NO_NUMBER}"
    rf"|(?:no|neither)[ \t]{{1,3}}(?:single[ \t]{{1,3}})?(?:(?P<which_no>{_WHICH})[ \t]{{1,3}})?"
    rf"{_STEP}s?{_NO_NUMBER}|没有(?:任何|哪)?一?个?步[骤驟]?)"
    rf"|{_ALL_STEPS}{_NO_NUMBER}"
    r"|(?P<rest>(?:all[ \t]{1,3})?(?:of[ \t]{1,3})?the[ \t]{1,3}(?:others|(?:other|remaining)[ \t]{1,3}(?:ones|"
    rf"{_WORD_NUM})|rest(?:[ \t]{{1,3}}of[ \t]{{1,3}}the[ \t]{{1,3}}(?:steps|solution|proof))?)(?![A-Za-z])"
    r"|(?:all|each[ \t]of[ \t]the)[ \t]{1,3}others(?![A-Za-z])|everything[ \t]{1,3}else)"
    rf"|(?P<which_zh>{_ZH_WHICH}|前(?=几)){_ZH_SOME}步[骤驟]?"
    r"|(?:所有|全部|每一?个?|各个?)的?步[骤驟]?)"
    rf"|(?:第[ \t]{{0,3}}(?=[^步段\n]{{1,60}}个?[步段])|(?:步[骤驟]|段落)[ \t#]{{0,3}})"
    rf"(?P<zh>{_ZH_NUM}(?:{_ZH_JOINED}(?:步[骤驟])?[ \t]{{0,3}}{_ZH_NUM}){{0,20}})"
    r"(?:[ \t]{0,3}个?[步段][骤驟落]?)?"
    r")(?:(?<=\d)(?!\d)|(?<!\d))",
    _I,
)
GROUPS = {name: re.compile(_any(words), _I) for name, words in _GROUPS.items()}
# `not all steps`
NOT_ALL = re.compile(r"(?:\bnot|并非|不是|并不是)[ \t]{0,3}\Z", _I)
# The words around a step that make it the end of a group: `up to step 2, everything`, `第3步之前的步骤`.
UP_TO = re.compile(
    r"(?:(?P<through>\bup[ \t]to(?:[ \t]and[ \t]including)?|\bthrough)"
    r"|(?P<to>\b(?:until|till|before|prior[ \t]to))|(?P<behind>\b(?:after|beyond))"
    r"|(?P<from>\b(?:from|starting[ \t](?:with|at|from)))"
    rf"|(?P<but>除了?|\b{_BUT}))"
    r"[ \t]{0,3}(?:the[ \t]{1,3})?[*_]{0,3}\Z",
    _I,
)
EVERYTHING = re.compile(
    r"[*_]{0,3}(?:[ \t]{1,3}on(?:wards?)?|[ \t]{1,3}inclusive|以外|之外|外)?[,，]?[ \t]{0,3}(?:the[ \t]{1,3})?"
    rf"(?:everything(?:[ \t]else)?|all(?:[ \t]{{1,3}}(?:of|the|these|other)){{0,3}}[ \t]{{1,3}}(?:{_STEP}s|others)"
    r"|all(?=[ \t]{1,3}(?:is|are|was|were|looks?|seems?)\b)"
    rf"|(?:every|each)[ \t]{{1,3}}(?:other[ \t]{{1,3}})?{_STEP}|(?:其余|其他|其它|所有|全部)的?(?:步[骤驟]?)?)",
    _I,
)
ONWARDS = re.compile(
    r"[*_]{0,3}(?:[ \t]{1,3}onwards?\b"
    r"|[ \t]{1,3}and[ \t]{1,3}(?:all[ \t]{1,3})?(?:later|onwards?|beyond|afterwards?|subsequent|following)"
    rf"(?:[ \t]{{1,3}}{_STEP}s|(?![ \t]{{1,3}}\w{{1,20}}[ \t]{{1,3}}{_STEP}))"
    r"|(?:开始|起|及以后|及之后|及其后)的?(?:所有|全部|各个?|每个?)?的?(?:步[骤驟]?)?)",
    _I,
)
# What may make a step such an end, where it stands right behind it.
BOUND = re.compile(
    r"[*_]{0,3}(?:[ \t]{1,3}(?:onwards?|on|inclusive|and|everything|all|every|each|the)\b"
    r"|[,，之以前后开起及外其所全为])",
    _I,
)
ZH_SIDE = re.compile(
    r"(?:(?P<to>之前|以前|前面)|(?P<behind>之后|以后|后面)|(?P<through>为止|及之前|及以前))的?(?:(?:所有|全部|各个?|每一?个?|几个?)的?)?"
    r"(?:步[骤驟]?|(?=[都均皆全，,]))"
)
# The subject of a verdict is several, though other words stand between them.
PLURAL = re.compile(
    r"(?:\b(?:are|were|remain|seem|look)(?:[ \t]{1,3}(?:all|both))?|[都均皆])[ \t]{0,3}[*_$\\(\[\"'“]{0,6}\Z", _I
)
# Another step, joined to the subject of a verdict.
AND = re.compile(
    r"[*_]{0,3},?[ \t]{0,3}(?:and|as[ \t]well[ \t]as|&|plus|nor|以及|及|和|与)"
    r"[ \t]{0,3}(?:also[ \t]|the[ \t]|both[ \t]){0,2}",
    _I,
)
# Behind a verdict on all steps: but for the one that follows.
BUT = re.compile(
    rf"[*_$\\)\]\"'”]{{0,6}}[,，]?[ \t]{{0,3}}(?:{_BUT}|除了)[ \t]{{0,3}}(?:the[ \t]{{1,3}})?[*_]{{0,3}}", _I
)
OFFSETS = {"next": 1, "下": 1, "previous": -1, "preceding": -1, "上": -1}  # from the step under discussion
# Item `k.` of a list, at the start of a line or right behind a verdict.
ITEM = re.compile(
    r"(?:^ {0,3}|(?<=[}$)\]])[ \t;,.]{1,4})[*_]{0,3}\(?(?P<number>\d{1,4})(?P<form>[.):：、])(?=[ \t*_]|$)",
    re.MULTILINE,
)
# The number of an item, alone in front of a verdict.
_POINTS = r"(?:[.):：、）\]]|[ \t]{0,3}(?:->|→|=>|⇒|[=–—-]))[*_]{0,3}[\s$\\(\[*_]{0,6}"
ITEM_ALONE = re.compile(
    rf"[\s>*_•+;,.，；-]{{0,8}}[(（\[]?(\d{{1,4}}){_POINTS}"
    rf"|[^\n.!?]{{0,60}}[:：][ \t]{{0,3}}\(?(1){_POINTS}"
)

# --- blanks, sentences and rounds

BLANKS = {ord("\N{NO-BREAK SPACE}"): " ", ord("\N{IDEOGRAPHIC SPACE}"): " ", ord("\N{NARROW NO-BREAK SPACE}"): " "}
LINE_END = re.compile(r"\n")
SENTENCE_END = re.compile(r"(?<![\\\d])[.!?;]+(?=[\s)\"'”’*]|$)|(?<=\d)[.!?;]+(?=\s+[A-Z*])|[。！？；]|\n")
ROUND = re.compile(r"^[ \t>*_#]{0,8}(?:let me double[- ]check|let's verify again|did i miss something)\b", _IM)

# --- left of a step

# Nothing that means anything: the sentence begins with the step.
_FILLER = _any(
    "ok okay now next then finally again so and but also however while whereas first second lastly thus "
    "hence well wait hmm+ actually hold_on alright right yes no oh correction similarly therefore "
    "overall looking here still on_second_thoughts? on_reflection in_summary to_summari[sz]e in_short "
    "let'?s let_us let_me i we will can should the this our my clearly yet besides moreover furthermore "
    "only even just by_contrast meanwhile unfortunately maybe perhaps indeed in_fact certainly obviously "
    "或 而 但 然后 接着 接下来 现在 首先 最后 其次 那么 因此 所以 不过 等等 再"
)
_MARKS = r"[\s>*_#+•·`\"'“‘’(\[（【{}$,，;；:：.。!?|\\~/<–—-]"
OPENING = re.compile(
    rf"(?:{_MARKS}|\\(?:text|textbf|item)\b|[bB]>|\d{{1,4}}[.)](?=[ \t*])|{_FILLER}(?![a-z]))*", _I
)

_JUDGEMENT = _any(
    "verdict conclusion critique analysis review evaluation assessment judge?ment check verification "
    "decision score 判断 结论 评价 分析"
)
_MOTION = rf"{_any('mov go turn return com proceed look jump get')}(?:e|ing|es|s)?"
_WAY = rf"(?:[ \t]{{1,3}}{_any('back on now forward next again ahead over closely')}){{0,3}}"
_EXAMINE = _any(
    "examine examining review reviewing consider inspect inspecting assess assessing evaluate evaluating "
    "check checking verify verifying double-?check(?:ing)? double_check(?:ing)? analy[sz]e analy[sz]ing "
    "critique critiquing judge judging revisit revisiting"
)
_CONCERNING = _any(
    "regarding concerning about as_for as_to with_regard_to with_respect_to back_to on_to onto "
    "that_leaves leaves up_is next_comes here_is this_is start_with starting_with begin_with "
    "beginning_with continue_with continuing_with 回到 回头看 再看 看看? 检查 来看 对于 关于 转到 进入 "
    "重新检查 重新审视 验证 审查"
)
_AGAIN = "check examin evaluat consider read visit verif assess do think calculat comput judg view"
_REDO = rf"re-?{_any(_AGAIN)}\w{{0,5}}"
# The text turns to the step.
TURNING = re.compile(
    rf"(?:{_MOTION}{_WAY}[ \t]{{1,3}}{_any('to at into through')}|{_REDO}|{_EXAMINE}|{_CONCERNING}"
    rf"|{_JUDGEMENT}(?:[ \t]{{1,3}}(?:for|of|on|about))?[:：]?)"
    r"[ \t]{0,3}(?:at[ \t]{1,3})?(?:(?:the|our|this|my)[ \t]{1,3})?[*_\[(\"“']{0,3}\Z",
    _I,
)
# A fault was found in the step. It counts where the sentence is about no other.
FAULT_IN = re.compile(
    rf"(?:{_any('mistake error problem issue flaw slip bug')}s?"
    rf"(?:[ \t]{{1,3}}{_any('is lies was are occurs occurred made happens appears here there')}){{0,2}}"
    r"[ \t]{1,3}(?:in|at|with|of)|wrong(?:ly)?[ \t]{1,3}(?:in|at|with|on))[ \t]{1,3}(?:the[ \t]{1,3})?[*_]{0,3}\Z",
    _I,
)
# At the head of a sentence: `For step 2`; work: `In step 2`.
PLACE = re.compile(
    r"(?:for|at|on|under|针对|(?P<work>in|within|during|在))[ \t]{0,3}(?:the[ \t]{1,3})?[*_\[]{0,3}\Z", _I
)
_REFERS = _any(
    r"from by using use[sd]? via like as of in at on with than per see cf\.? to into after before since "
    r"because if given unlike following recall(?:ing)? equation between until for when where which though "
    r"although once contradict\w{0,4} match\w{0,4} combin\w{1,4} substitut\w{1,4} appl\w{1,4} "
    r"follow\w{0,4} needs? requires? repeat\w{0,4} confirm\w{0,4} extend\w{0,4} assum\w{1,4} "
    r"inherit\w{0,4} copy copie[sd] quot\w{1,4} rewrit\w{1,4} restat\w{1,4} simplif\w{1,5} continu\w{1,4}"
)
_ZH_REFERS = _any("由 从 根据 利用 使用 用 依据 基于 结合 与 和 如 按 把 将 代入 沿用 承接")
# The step only helps another one.
REFERENCE = re.compile(
    rf"(?:\b{_REFERS}(?:[ \t]{{1,3}}both)?[ \t]{{1,3}}(?:(?:the|our|of)[ \t]{{1,3}}){{0,2}}"
    rf"|{_ZH_REFERS}[ \t]{{0,3}})"
    r"[*_]{0,3}\Z",
    _I,
)

# --- right of a step

# It is a label, and not the subject of a sentence.
LABEL = re.compile(
    r"(?:[ \t]{0,3}\([^()\n]{0,80}\))?[*_\]】)\"'”}]{0,4}[ \t]{0,20}"
    r"(?:[:：.。)\]】、|,，](?!\d)|</|-{1,2}>?(?=[\s*\\$])|[–—→⇒]|=>|\r?$"
    r"|(?:is[ \t]{1,5})?[\\$(\[ *]{0,4}\\?(?:boxed|fbox))",
    _IM,
)
# Between it and its verdict stands no other subject.
_LINKS = _any(
    "is are was were seems? looks? appears? remains? must should has have to be been being gets? "
    "becomes? also still thus therefore hence clearly actually indeed both all each marked judged deemed "
    "considered labell?ed rated verdict as now then again not completely fully entirely mathematically "
    "logically definitely in_fact itself however so turns_out would can cannot will 我认为 应该 应 是 为 "
    "都 均 也 判断 判定 评为 属于 被 标记 步骤 的结论 结论 不"
)
_DECOR = r"[\s*_$\\(\[{\"'“”`:：=~|–—>→⇒<-]"
COPULA = re.compile(
    rf"(?:{_DECOR}|(?:['’]s|n['’]t)\b|\)?\\?(?:text|textbf|mathbf)(?=\{{)|\)|b>|{_LINKS}(?![a-z]))*", _I
)

# --- left of a verdict

_SAYS = _any(
    "is was 's ’s seems looks must_be should_be would_be itself also as_well therefore thus indeed "
    "clearly still not in_fact actually judged marked as be overall are of the above given provided "
    "as_a_whole 是 为 也 应为 应该是 判断为 不"
)
_UP_TO_BOX = rf"(?:[ \t]{{0,3}}{_SAYS}|,){{0,6}}[ \t]{{0,3}}[:：]?[*_$\\(\[\"'“ ]{{0,6}}\Z"
NEGATED = re.compile(r"(?:\bnot|n['’]t|\bnever|\bhardly|并?不是?|并非|非)[ \t]{0,3}[*_$\\(\[\"'“]{0,4}\Z", _I)
# The step under discussion is meant; `step`: by that word.
SAME_STEP = re.compile(
    r"(?:(?P<step>\b(?:the|this|that)[ \t]{1,3}(?:(?:current|present|whole|entire)[ \t]{1,3})?"
    rf"(?:step|one|paragraph)|该步骤?|这一?步骤?|此步骤?|本步骤?)|\b(?:it|this|that)|它){_UP_TO_BOX}",
    _I,
)
# The whole solution is meant; `solution`: whatever is under discussion.
WHOLE = re.compile(
    rf"(?:\b(?P<solution>{_any('solution proof reasoning argument derivation')})|\b(?:answer|result)"
    rf"|整个解答|解答|解法|总体|整体|答案){_UP_TO_BOX}"
    rf"|\b(?:overall|in total|as a whole|all in all|final {_any('verdict assessment conclusion judge?ment')})\b"
    r"[^.\n]{0,50}\Z"
    r"|(?:总之|综上)[^.\n]{0,50}\Z",
    _I,
)
OF_A_STEP = re.compile(r"\bstep\b|步", _I)

# --- right of a verdict

# The step that it is on, said afterwards; and what may stand behind that.
_MY_VERDICT = rf"(?:(?:is|was)[ \t]{{1,3}}(?:(?:the|my|our)[ \t]{{1,3}})?{_JUDGEMENT}[ \t]{{1,3}})?"
NAMED_AFTER = re.compile(
    rf"[ \t*_$\\)\]\"'”]{{0,6}}(?:\(|（|{_MY_VERDICT}(?:for|on|to)[ \t]{{1,3}})"
    r"[ \t]{0,3}(?:the[ \t]{1,3})?[*_]{0,3}"
)
NAMED_BELOW = re.compile(  # over a line end: a sentence that goes on
    rf"[ \t*_$\\)\]\"'”]{{0,6}}\n[ \t]{{0,8}}{_MY_VERDICT}"
    r"(?:for|on|to|about|regarding)[ \t]{1,3}(?:the[ \t]{1,3})?[*_]{0,3}"
)
LINE_ENDS = re.compile(
    r"[ \t*_)\]]{0,6}(?:[.;。；]?[ \t]*$|,?[ \t]{1,3}(?:and|but|while|whereas)\b)", re.MULTILINE
)
AFTERWARDS = re.compile(r"[ \t]*(?:[)）.,;，。；]|$|(?:and|but|while)\b)", re.MULTILINE)
# Talk of verdicts: a question, a condition, an alternative.
IF_IT_IS = re.compile(
    r"[*_$\\)\]\"'”`]{0,6}[ \t]{0,3}(?:[?？]|如果|(?:for|when) (?:every|each|any|an? (?:in)?correct)\b"
    r"|if[ \t]{1,3}(?:(?:the|an?|each|every|any|this|that|all)[ \t]{1,3})?(?:steps?|paragraphs?|it|they)\b)",
    _I,
)
_QUOTES = r"[*_$\\()\[\]\"'“”`]{0,6}"
EITHER = re.compile(rf"{_QUOTES}[ \t]{{0,5}}(?:or|/|vs\.?|或者?|还是)[ \t]{{0,5}}{_QUOTES}", _I)

# --- tables

_CELL_STEP = rf"(?:{_STEP}[ \t]{{0,3}}\#?|步[骤驟]|第)[ \t]{{0,3}}"
# A cell that is a step and nothing else.
STEP_CELL = re.compile(
    rf"[\s*_`#(]*(?:\\text(?:bf)?\{{)?(?P<word>{_CELL_STEP})?(?P<number>{_NUM}|{_ZH_NUM})[ \t]{{0,3}}步?骤?"
    r"[\s*_`).:}]*",
    _I,
)
ROW = re.compile(
    r"[ \t]*(?:\|(?:[ \t]|[^\n]*\|[ \t]*$)"
    rf"|[*_]{{0,3}}(?:{_CELL_STEP})?{_ZH_NUM}步?[*_]{{0,3}}[ \t]*(?:\||&(?!=)|\t))",
    _IM,
)
CELL = re.compile(r"([^|&\t\n]*)(?:[|&\t\n]|\Z)")

# --- verdicts that stand before the label of their step

# Left of such a verdict, from the start of its line or sentence.
VERDICT_OPENS = re.compile(
    r"[\s>*_#+•·`\"“‘(\[（【$,，;；|\\~/<–—-]{0,12}"
    rf"(?:(?:step[ \t])?(?:{_JUDGEMENT}|{_any('answer result rating grade label 答案 结果')})"
    rf"[*_]{{0,3}}[ \t]{{0,3}}[:：=–—-]{{0,2}}[*_$\\(\[ \t]{{0,8}})?",
    _I,
)
# Between it and the label, and what of that says by itself that the verdict is on the step behind it.
LABEL_BEHIND = re.compile(
    r"[ \t*_$\\)\]}\"'”`.:：;,，。|]{0,8}\n{0,2}[ \t>*_#•·+\[【<`]{0,8}"
    r"(?P<mark>[–—→⇒(（]|->|=>|-{2,3}|//)?[ \t*_]{0,4}-?[ \t*_#]{0,4}"
    rf"(?P<word>{_MY_VERDICT}(?:for|on|about|regarding)[ \t]{{1,3}}(?:the[ \t]{{1,3}})?)?[*_\[(]{{0,3}}"
)

# --- boxes

BOX = re.compile(r"(?:\\|(?<![A-Za-z\\]))(?:boxed|fbox|framebox|bbox|dbox)(?:\[[^\]\n]{0,40}\])?\s{0,20}\{")
BRACE = re.compile(r"\\[{}]|[{}]")
# What stands in a box beside its words.
STYLING = re.compile(
    r"\\(?:textcolor|color|colorbox|fcolorbox|fontsize|hspace|vspace)\s{0,5}(?:\[[^\]]{0,20}\])?\s{0,5}"
    r"\{[^{}]{0,40}\}"
    r"|\\(?!neg|lnot|not\b)[A-Za-z]{1,30}\*?|\\[^A-Za-z]|(?<![A-Za-z])['’]|['’](?![A-Za-z])"
    r"|[{}$*_~`\"“”‘「」『』«»✓✔✅✗✘❌☑☒\[\]]"
)
VERDICT_WORD = re.compile(
    rf"(?<![A-Za-z])(?:(?P<good>correct|valid)|{_any('incorrect wrong invalid erroneous')})(?![A-Za-z])"
    r"|(?P<no_fault>(?:没有?|无)(?:任何)?(?:错误|问题))|不正确|不对|错误|錯誤|有误|有誤|错"
    r"|(?P<zh_good>正确|正確|无误|無誤|对)",
    _I,
)
# Words in front of the verdict, a negation, and what may follow.
_LEAD = _any(
    rf"the this that given current steps? paragraphs? number no\. is was are were it as all both so thus "
    rf"therefore hence answer solution verdict conclusion judge?ment result final clearly completely "
    rf"entirely totally fully partially partly mathematically logically definitely simply just also still "
    rf"to and be must would {_ONES} {_ORDINALS}"
)
BOX_LEAD = re.compile(
    rf"(?:[\s,.:：，、()（）#=–—-]|\d|{_LEAD}(?![a-z])"
    rf"|[{_ZH}十第步骤驟这该此本是为均都判断结论评价并完全]|段落)*",
    _I,
)
BOX_NEGATION = re.compile(
    rf"(?:\bnot(?:[ \t]{{1,3}}{_any('quite entirely fully completely mathematically logically really')})?|n['’]t"
    r"|\bnever|\bno longer|并非|不是|非)\s{0,5}\Z",
    _I,
)
PARTLY = re.compile(r"\b(?:partially|partly)\b", _I)
BOX_TAIL = re.compile(
    r"\s*的?[\s)）]*(?:\Z|[.!。！]\s*\Z|[(（:：;；–—-]|[,，.。](?!.*(?:correct|正确|错误))"
    r"|\b(?:because|since|as|due|for|step)\b|步骤?)",
    _I | re.DOTALL,
)
