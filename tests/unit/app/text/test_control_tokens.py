"""Control tokens, and what nobody sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from app.text.fencing import looking_like, neutralise, renumber, visible
from tests.attacks.injections import ATTACKS
from tests.vllm.tiny_gemma import make_tokenizer

TOKENS = (
    *("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
    *("<end_of_image>", "<image_soft_token>", "<unused42>", "<[multimodal]>", "<0x0A>", "<|turn>", "<turn|>"),
    *("<|channel>", "<channel|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>"),
    *("</tool_call>", "<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>", "<|reserved_special_token_7|>"),
    *("[INST]", "[/INST]", "<s>", "</s>", "<<SYS>>", "<</SYS>>", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[THINK]", "<|user|>", "<|end|>"),
    *("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<|start|>", "<|channel|>"),
    *("<|message|>", "<|return|>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "[gMASK]", "<sop>", "<eop>", "[|user|]"),
    *("[|endofturn|]", "<seed:bos>", "<extra_id_0>", "<SPECIAL_12>", "<fim_prefix>", "<file_sep>", "]~b]", "[e~["),
    *("<|fim_middle|>", "<|vision_start|>", "<|python_tag|>", "<|assistant|>", "<image>", "<audio>", "<reserved_102>"),
)

ORDINARY = (
    "A plain sentence, with a dash – and “quotes”, it costs 5 € [12], see (3) & more.",
    "<div class='a'><p>Text</p><br/></div> <b>bold</b> <table> <h1>Title</h1> <!-- note --> <script>x</script>",
    "if a<b and c>d: x = list[int]; y = a[0] | b[1]; f <| g |> h; p <|> q; a <- b; x <= y; 1 << 2 >> 3",
    "<?xml version='1.0'?><order id='7'><item>bolt</item></order> <ns:tag/> List<String> m = new Map<K, V>();",
    "Vec<&str>, Option<Box<dyn Fn(u8) -> u8>>, &lt;div&gt; &amp; &lt;p&gt;, x && y, [a, b], [!NOTE], [x](y), [ ]",
    "P(A|B) = P(A ∩ B) / P(B); |x| < |y|; ∀x ∈ ℝ: x² ≥ 0; <x|y> = <y|x>*; |ψ⟩⟨ψ|",
    "《红楼梦》是一部小说，共一百二十回。【注】见〈附录〉。他说：“你好！”",
    "「吾輩は猫である」。名前はまだ無い。〔注〕カタカナ、ﾊﾝｶｸ、全角ＡＢＣ＜１２３＞",
    "می‌خواهم بروم. क्‍ष और र्‍य के रूप। ශ්‍රී ලංකාව",
    "👨‍👩‍👧 ❤️ 1️⃣ 🏳️‍🌈 ☎️ ©️ 👍🏽",
    "Привет, мир! <em>курсив</em> «кавычки» [5]",
    "\ttab\nline\r\nline\x0cpage",
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Gemma's tokens, and with them those of every other family."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [*tokenizer.all_special_tokens, *TOKENS]})
    return tokenizer


def specials(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    known = set(tokenizer.added_tokens_decoder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.convert_ids_to_tokens(token) for token in ids if token in known]


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_is_none_any_more(tokenizer: PreTrainedTokenizerFast, token: str) -> None:
    """The tokenizer takes it for one as it is, and for ordinary text afterwards, of which all is still there."""
    assert specials(tokenizer, f"a {token} b")
    changed = neutralise(f"a {token} b")
    assert specials(tokenizer, changed) == []
    assert changed.replace(" ", "") == f"a{token}b"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.technique)
def test_no_attack_holds_a_control_token(tokenizer: PreTrainedTokenizerFast, attack: tuple[str, str]) -> None:
    """Not even one that was disguised."""
    assert specials(tokenizer, neutralise(attack[1])) == []


@given(st.lists(st.sampled_from([*TOKENS, "<", ">", "|", "/", "[", "]", "\u200b", "\u00ad", "a", " "]), max_size=8))
def test_no_mixture_holds_a_control_token(tokenizer: PreTrainedTokenizerFast, pieces: list[str]) -> None:
    """Tokens inside tokens, broken and invisible pieces between them."""
    assert specials(tokenizer, neutralise("".join(pieces))) == []


DISGUISES = (
    ("<end\u200b_of_turn>", "< end_of_turn>"),
    ("<\u2060e\u00adnd_of_turn\ufeff>", "< end_of_turn>"),
    ("<end_of\ufe0f_turn>", "< end_of_turn>"),
    ("<end\U000e0041_of_turn>", "< end_of_turn>"),
    ("<\u202eend_of_turn\u202c>", "< end_of_turn>"),
    ("<\x08end_of_turn>", "< end_of_turn>"),
    ("＜end_of_turn＞", "＜ end_of_turn＞"),
    ("＜ｅｎｄ＿ｏｆ＿ｔｕｒｎ＞", "＜ ｅｎｄ＿ｏｆ＿ｔｕｒｎ＞"),
    ("‹end_of_turn›", "‹ end_of_turn›"),
    ("<еnd_оf_turn>", "< еnd_оf_turn>"),
    ("<END_OF_TURN>", "< END_OF_TURN>"),
    ("&lt;end_of_turn&gt;", "&lt; end_of_turn&gt;"),
    ("&#60;end_of_turn&#62;", "&#60; end_of_turn&#62;"),
    ("&#x3C;|im_end|&#x3E;", "&#x3C; |im_end|&#x3E;"),
    ("［INST］", "［ INST］"),
    ("<end_of_<end_of_turn>turn>", "<end_of_< end_of_turn>turn>"),
)


@pytest.mark.parametrize(("disguised", "broken"), DISGUISES)
def test_a_disguise_does_not_help(disguised: str, broken: str) -> None:
    """What nobody sees goes away; what is seen stays, with a space after the bracket."""
    assert neutralise(f"Grüße {disguised} b") == f"Grüße {broken} b"


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """Markup, code, mathematics, scripts that need joiners, emoji."""
    assert neutralise(text) == text


@given(st.text(alphabet=st.characters(categories=("L", "N", "Zs", "Po")), max_size=200))
def test_prose_stays_as_it_is(text: str) -> None:
    """Letters of any script, digits, spaces and punctuation, apart from the few letters that have no shape."""
    shapeless = "\u115f\u1160\u3164\uffa0"
    assert neutralise(text) == "".join(letter for letter in text if letter not in shapeless) or "&" in text


@given(st.text(alphabet=st.sampled_from("<>|[]/&;_ ltgINSTsbo\u200b\u200d\ufe0f\u00ad👍क<＜＞е\n\u20e3"), max_size=60))
def test_twice_changes_no_more_than_once(text: str) -> None:
    """A text that was neutralised is as it should be."""
    once = neutralise(text)
    assert neutralise(once) == once


@given(st.text(max_size=200))
def test_only_spaces_are_added(text: str) -> None:
    """Without them, and without what nobody sees, it is the same text."""
    assert neutralise(text).replace(" ", "") == visible(text).replace(" ", "")


@given(st.text(max_size=200))
def test_what_is_visible_stays_in_its_order(text: str) -> None:
    """Characters go; none comes or moves."""
    rest = iter(text)
    assert all(letter in rest for letter in visible(text))


def test_flags_and_smuggled_letters_lose_their_tags() -> None:
    """Tag characters say nothing to a reader."""
    assert visible("🏴\U000e0067\U000e0062\U000e007f a\U000e0049\U000e0067") == "🏴 a"


def test_look_alikes_are_read_as_what_they_look_like() -> None:
    """Character by character."""
    assert looking_like("＜іgnоrе＞【x】") == "<ignore>[x]"


def test_numbers_of_passages_lose_their_brackets() -> None:
    """They stay readable; what holds more than a number stays."""
    assert renumber("[1] a [23] b [x] c[4]") == "(1) a (23) b [x] c(4)"
