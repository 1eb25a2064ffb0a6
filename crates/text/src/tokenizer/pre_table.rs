//! The pre-tokenizers by name: what each model family's `tokenizer.json` says, as data for [`super::pre`].
//!
//! The names are GGUF's `tokenizer.ggml.pre`. Above each pattern stands the expression it spells.

use super::chars::{ASCII_LETTER, ASCII_PUNCT, HAN, L, LL, LM, LO, LT, LU, M, N, NL, P, S, SLASH, SPACE, WS};
use super::pre::{Alternative, Class, Item, Stage};
use Item::{Ending, MaybeEnding, NotBefore, Run};

const MANY: usize = usize::MAX;
const SPACE_OPT: Item = Run(Class::of(SPACE), 0, 1);
const WS_OPT: Item = Run(Class::of(WS), 0, 1);
const LETTERS: Item = Run(Class::of(L), 1, MANY);
/// `[^\s\p{L}\p{N}]+`
const MARKS: Item = Run(Class::not(WS | L | N), 1, MANY);
/// `[^\r\n\p{L}\p{N}]?`
const LEAD: Item = Run(Class::not(NL | L | N), 0, 1);
const LINES: Item = Run(Class::of(NL), 0, MANY);

// Alternatives that several patterns share.
/// `\s*[\r\n]+`
const TO_LINE_END: Alternative = &[Run(Class::of(WS), 0, MANY), Run(Class::of(NL), 1, MANY)];
/// `\s+(?!\S)`
const SPACES_BUT_LAST: Alternative = &[Run(Class::of(WS), 1, MANY), NotBefore(Class::not(WS))];
/// `\s+`
const SPACES: Alternative = &[Run(Class::of(WS), 1, MANY)];
/// `\p{N}{1,3}`
const UP_TO_3_DIGITS: Alternative = &[Run(Class::of(N), 1, 3)];
/// `\p{N}`
const DIGIT: Alternative = &[Run(Class::of(N), 1, 1)];
/// `\p{N}+`
const DIGITS: Alternative = &[Run(Class::of(N), 1, MANY)];
/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
const ENDING: Alternative = &[Ending { any_case: true }];
/// `[^\r\n\p{L}\p{N}]?\p{L}+`
const WORD: Alternative = &[LEAD, LETTERS];
/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const MARKS_TO_LINE_END: Alternative = &[SPACE_OPT, MARKS, LINES];
/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
const MARKS_TO_SLASH: Alternative = &[SPACE_OPT, MARKS, Run(Class::of(NL | SLASH), 0, MANY)];
/// `[\r\n]`
const LINE_CHAR: Alternative = &[Run(Class::of(NL), 1, 1)];

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const GPT2: Stage = Stage::First(&[
    &[Ending { any_case: false }],
    &[SPACE_OPT, LETTERS],
    &[SPACE_OPT, Run(Class::of(N), 1, MANY)],
    &[SPACE_OPT, MARKS],
    SPACES_BUT_LAST,
    SPACES,
]);
/// `(?i:'s|…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const LLAMA3: Stage =
    Stage::First(&[ENDING, WORD, UP_TO_3_DIGITS, MARKS_TO_LINE_END, TO_LINE_END, SPACES_BUT_LAST, SPACES]);
/// As [`LLAMA3`], digit by digit.
const QWEN2: Stage =
    Stage::First(&[ENDING, WORD, DIGIT, MARKS_TO_LINE_END, TO_LINE_END, SPACES_BUT_LAST, SPACES]);
/// As [`QWEN2`], without English endings.
const UFAKZEKA: Stage = Stage::First(&[WORD, DIGIT, MARKS_TO_LINE_END, TO_LINE_END, SPACES_BUT_LAST, SPACES]);
/// As [`QWEN2`], with combining marks inside words.
const QWEN35: Stage = Stage::First(&[
    ENDING,
    &[LEAD, Run(Class::of(L | M), 1, MANY)],
    DIGIT,
    &[SPACE_OPT, Run(Class::not(WS | L | M | N), 1, MANY), LINES],
    TO_LINE_END,
    SPACES_BUT_LAST,
    SPACES,
]);
/// As [`QWEN2`], with one line break at a time.
const BAILING: Stage = Stage::First(&[
    ENDING,
    WORD,
    DIGIT,
    MARKS_TO_LINE_END,
    &[Run(Class::of(WS), 0, MANY), Run(Class::of(NL), 1, 1)],
    SPACES_BUT_LAST,
    SPACES,
]);
/// As [`QWEN2`], with line breaks apart from punctuation.
const SEED_CODER: Stage =
    Stage::First(&[ENDING, WORD, DIGIT, &[SPACE_OPT, MARKS], TO_LINE_END, SPACES_BUT_LAST, SPACES]);
/// As [`LLAMA3`], with whole numbers.
const MINICPM5: Stage =
    Stage::First(&[ENDING, WORD, DIGITS, MARKS_TO_LINE_END, TO_LINE_END, SPACES_BUT_LAST, SPACES]);

const UPPER: u32 = LU | LT | LM | LO | M;
const LOWER: u32 = LL | LM | LO | M;
const ENDING_OPT: Item = MaybeEnding { any_case: true };

/// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|…)?`, then the same with
/// `+` and `*` swapped, `\p{N}{1,3}`, ` ?[^\s\p{L}\p{N}]+[\r\n/]*`, `\s*[\r\n]+`, `\s+(?!\S)`, `\s+`
const GPT4O: Stage = Stage::First(&[
    &[LEAD, Run(Class::of(UPPER), 0, MANY), Run(Class::of(LOWER), 1, MANY), ENDING_OPT],
    &[LEAD, Run(Class::of(UPPER), 1, MANY), Run(Class::of(LOWER), 0, MANY), ENDING_OPT],
    UP_TO_3_DIGITS,
    MARKS_TO_SLASH,
    TO_LINE_END,
    SPACES_BUT_LAST,
    SPACES,
]);
/// As [`GPT4O`], digit by digit and without English endings.
const TEKKEN: Stage = Stage::First(&[
    &[LEAD, Run(Class::of(UPPER), 0, MANY), Run(Class::of(LOWER), 1, MANY)],
    &[LEAD, Run(Class::of(UPPER), 1, MANY), Run(Class::of(LOWER), 0, MANY)],
    DIGIT,
    MARKS_TO_SLASH,
    TO_LINE_END,
    SPACES_BUT_LAST,
    SPACES,
]);
/// `[\p{Han}]+`, then as [`GPT4O`] with the letters' classes less Han and without the slash.
const KIMI_K2: Stage = Stage::First(&[
    &[Run(Class::of(HAN), 1, MANY)],
    &[
        LEAD,
        Run(Class::of_but_not(UPPER, HAN), 0, MANY),
        Run(Class::of_but_not(LOWER, HAN), 1, MANY),
        ENDING_OPT,
    ],
    &[
        LEAD,
        Run(Class::of_but_not(UPPER, HAN), 1, MANY),
        Run(Class::of_but_not(LOWER, HAN), 0, MANY),
        ENDING_OPT,
    ],
    UP_TO_3_DIGITS,
    MARKS_TO_LINE_END,
    TO_LINE_END,
    SPACES_BUT_LAST,
    SPACES,
]);

/// `[一-龥぀-ゟ゠-ヿ]+`
const CJK_AND_KANA: Stage =
    Stage::First(&[&[Run(Class::ranges(&[('\u{3040}', '\u{30ff}'), ('一', '龥')]), 1, MANY)]]);
/// `[!-~ without letters and digits][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
/// \s*[\r\n]+|\s+(?!\S)|\s+`
const DEEPSEEK_V3: Stage = Stage::First(&[
    &[Run(Class::of(ASCII_PUNCT), 1, 1), Run(Class::of(ASCII_LETTER), 1, MANY)],
    &[Run(Class::not(NL | L | P | S), 0, 1), Run(Class::of(L | M), 1, MANY)],
    &[SPACE_OPT, Run(Class::of(P | S), 1, MANY), LINES],
    TO_LINE_END,
    SPACES_BUT_LAST,
    SPACES,
]);

/// `[一-龥ࠀ-一가-퟿]+`
const CJK_WIDE: Stage =
    Stage::First(&[&[Run(Class::ranges(&[('\u{800}', '龥'), ('가', '\u{d7ff}')]), 1, MANY)]]);
/// DeepSeek's own list of cased letters.
const CASED: &[(char, char)] = &[
    ('A', 'Z'),
    ('a', 'z'),
    ('\u{b5}', '\u{b5}'),
    ('\u{c0}', '\u{d6}'),
    ('\u{d8}', '\u{f6}'),
    ('\u{f8}', '\u{1ba}'),
    ('\u{1bc}', '\u{1bf}'),
    ('\u{1c4}', '\u{293}'),
    ('\u{295}', '\u{2af}'),
    ('\u{370}', '\u{373}'),
    ('\u{376}', '\u{376}'),
    ('\u{377}', '\u{377}'),
    ('\u{37b}', '\u{37d}'),
    ('\u{37f}', '\u{37f}'),
    ('\u{386}', '\u{386}'),
    ('\u{388}', '\u{38a}'),
    ('\u{38c}', '\u{38c}'),
    ('\u{38e}', '\u{3a1}'),
    ('\u{3a3}', '\u{3f5}'),
    ('\u{3f7}', '\u{481}'),
    ('\u{48a}', '\u{52f}'),
    ('\u{531}', '\u{556}'),
    ('\u{10a0}', '\u{10c5}'),
    ('\u{13a0}', '\u{13f5}'),
    ('\u{13f8}', '\u{13fd}'),
    ('\u{1c90}', '\u{1cba}'),
    ('\u{1cbd}', '\u{1cbf}'),
    ('\u{1d00}', '\u{1d2b}'),
    ('\u{1d6b}', '\u{1d77}'),
    ('\u{1d79}', '\u{1d9a}'),
    ('\u{1e00}', '\u{1f15}'),
    ('\u{1f18}', '\u{1f1d}'),
    ('\u{1f20}', '\u{1f45}'),
    ('\u{1f48}', '\u{1f4d}'),
    ('\u{1f50}', '\u{1f57}'),
    ('\u{1f59}', '\u{1f59}'),
    ('\u{1f5b}', '\u{1f5b}'),
    ('\u{1f5d}', '\u{1f5d}'),
    ('\u{1f5f}', '\u{1f7d}'),
    ('\u{1f80}', '\u{1fb4}'),
    ('\u{1fb6}', '\u{1fbc}'),
    ('\u{1fbe}', '\u{1fbe}'),
    ('\u{1fc2}', '\u{1fc4}'),
    ('\u{1fc6}', '\u{1fcc}'),
    ('\u{1fd0}', '\u{1fd3}'),
    ('\u{1fd6}', '\u{1fdb}'),
    ('\u{1fe0}', '\u{1fec}'),
    ('\u{1ff2}', '\u{1ff4}'),
    ('\u{1ff6}', '\u{1ffc}'),
    ('\u{2102}', '\u{2102}'),
    ('\u{2107}', '\u{2107}'),
    ('\u{210a}', '\u{2113}'),
    ('\u{2115}', '\u{2115}'),
    ('\u{2119}', '\u{211d}'),
    ('\u{2124}', '\u{2124}'),
    ('\u{2126}', '\u{2126}'),
    ('\u{2128}', '\u{2128}'),
    ('\u{212a}', '\u{212d}'),
    ('\u{212f}', '\u{2134}'),
    ('\u{2139}', '\u{2139}'),
    ('\u{213c}', '\u{213f}'),
    ('\u{2145}', '\u{2149}'),
    ('\u{214e}', '\u{214e}'),
    ('\u{2183}', '\u{2183}'),
    ('\u{2184}', '\u{2184}'),
    ('\u{2c00}', '\u{2c7b}'),
    ('\u{2c7e}', '\u{2ce4}'),
    ('\u{2ceb}', '\u{2cee}'),
    ('\u{2cf2}', '\u{2cf2}'),
    ('\u{2cf3}', '\u{2cf3}'),
    ('\u{a640}', '\u{a66d}'),
    ('\u{a680}', '\u{a69b}'),
    ('\u{a722}', '\u{a76f}'),
    ('\u{a771}', '\u{a787}'),
    ('\u{a78b}', '\u{a78e}'),
    ('\u{ab70}', '\u{abbf}'),
    ('\u{fb00}', '\u{fb06}'),
    ('\u{fb13}', '\u{fb17}'),
    ('\u{ff21}', '\u{ff3a}'),
    ('\u{ff41}', '\u{ff5a}'),
    ('\u{10400}', '\u{1044f}'),
    ('\u{104b0}', '\u{104d3}'),
    ('\u{104d8}', '\u{104fb}'),
    ('\u{10c80}', '\u{10cb2}'),
    ('\u{10cc0}', '\u{10cf2}'),
    ('\u{118a0}', '\u{118df}'),
    ('\u{1e900}', '\u{1e943}'),
];
/// `[!-/:-~！-／：-～‘-‟　-。]`
const WIDE_MARKS: &[(char, char)] =
    &[('!', '/'), (':', '~'), ('‘', '‟'), ('\u{3000}', '。'), ('！', '／'), ('：', '～')];

const SINGLE_DIGITS: Stage = Stage::First(&[DIGIT]);
const DIGIT_TRIPLES: Stage = Stage::First(&[UP_TO_3_DIGITS]);
const NUMBERS: Stage = Stage::First(&[DIGITS]);
const LINE_CHARS: Stage = Stage::First(&[LINE_CHAR]);
/// `[0-9][0-9][0-9]`
const ASCII_TRIPLES: Stage = Stage::First(&[&[Run(Class::ranges(&[('0', '9')]), 3, 3)]]);
/// `[^\n]+|[\n]+`
const BY_LINE: Stage = Stage::First(&[
    &[Run(Class::ranges(&[('\0', '\t'), ('\u{b}', char::MAX)]), 1, MANY)],
    &[Run(Class::ranges(&[('\n', '\n')]), 1, MANY)],
]);
/// `[\p{P}$+<=>^~|]+`
const ISOLATED_MARKS: Stage = Stage::First(&[&[Run(
    Class::of(P).and(&[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('|', '|'), ('~', '~')]),
    1,
    MANY,
)]]);
/// The same with the backtick.
const FALCON_MARKS: Stage = Stage::First(&[&[Run(
    Class::of(P).and(&[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('`', '`'), ('|', '|'), ('~', '~')]),
    1,
    MANY,
)]]);
/// ` ?[^(\s|.,!?…。，、।۔،)]+`
const BLOOM: Stage = Stage::First(&[&[SPACE_OPT, Run(Class::not(WS).but(BLOOM_STOPS), 1, MANY)]]);
const BLOOM_STOPS: &[(char, char)] = &[
    ('!', '!'),
    ('(', '('),
    (')', ')'),
    (',', ','),
    ('.', '.'),
    ('?', '?'),
    ('|', '|'),
    ('،', '،'),
    ('۔', '۔'),
    ('।', '।'),
    ('…', '…'),
    ('、', '、'),
    ('。', '。'),
    ('，', '，'),
];

/// How one family's text is cut, and what follows from its name besides.
#[derive(Debug)]
pub(crate) struct Pre {
    /// The names GGUF files use for it.
    pub(crate) names: &'static [&'static str],
    /// The patterns, outermost first.
    pub(crate) stages: &'static [Stage],
    /// A word that is a token is that token, whatever the merges say.
    pub(crate) whole_words: bool,
    /// Texts begin with `bos` unless the file says otherwise.
    pub(crate) add_bos: bool,
    /// Merges start from characters with `<0xNN>` as a fallback, and spaces are U+2581: SentencePiece's convention.
    pub(crate) raw_utf8: bool,
}

const fn pre(names: &'static [&'static str], stages: &'static [Stage]) -> Pre {
    Pre { names, stages, whole_words: false, add_bos: false, raw_utf8: false }
}

/// The pre-tokenizers there are.
pub(crate) static TABLE: &[Pre] = &[
    pre(&["default"], &[ISOLATED_MARKS, GPT2, NUMBERS, ASCII_TRIPLES]),
    pre(
        &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "roberta-bpe",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        &[GPT2],
    ),
    pre(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[SINGLE_DIGITS, GPT2],
    ),
    Pre {
        whole_words: true,
        add_bos: true,
        ..pre(
            &[
                "llama-bpe",
                "llama3",
                "llama-v3",
                "falcon3",
                "falcon-h1",
                "pixtral",
                "midm-2.0",
                "lfm2",
                "jina-v5-nano",
            ],
            &[LLAMA3],
        )
    },
    pre(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    pre(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "solar-open",
            "grok-2",
            "kormo",
            "f2llmv2",
        ],
        &[QWEN2],
    ),
    pre(&["qwen35"], &[QWEN35]),
    pre(&["laguna"], &[BY_LINE, QWEN2]),
    pre(&["ufakzeka"], &[UFAKZEKA]),
    pre(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    pre(&["seed-coder"], &[SEED_CODER]),
    Pre { whole_words: true, ..pre(&["minicpm5"], &[DIGIT_TRIPLES, MINICPM5]) },
    pre(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    Pre { whole_words: true, ..pre(&["granite-embed-multi-97m"], &[GPT4O]) },
    Pre { whole_words: true, add_bos: true, ..pre(&["tekken"], &[TEKKEN]) },
    pre(&["kimi-k2"], &[KIMI_K2]),
    pre(&["falcon"], &[FALCON_MARKS, GPT2, ASCII_TRIPLES]),
    pre(
        &["deepseek-llm"],
        &[
            LINE_CHARS,
            Stage::First(&[&[WS_OPT, Run(Class::ranges(CASED), 1, MANY)]]),
            Stage::First(&[&[WS_OPT, Run(Class::ranges(WIDE_MARKS), 1, MANY)]]),
            Stage::TrailingSpace,
            CJK_WIDE,
            NUMBERS,
        ],
    ),
    pre(
        &["deepseek-coder"],
        &[
            LINE_CHARS,
            Stage::First(&[&[WS_OPT, LETTERS]]),
            Stage::First(&[&[WS_OPT, Run(Class::of(P), 1, MANY)]]),
            CJK_WIDE,
            SINGLE_DIGITS,
        ],
    ),
    pre(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[DIGIT_TRIPLES, CJK_AND_KANA, DEEPSEEK_V3]),
    pre(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    pre(&["viking"], &[BLOOM, SINGLE_DIGITS]),
    Pre { add_bos: true, raw_utf8: true, ..pre(&["gemma4"], &[BY_LINE]) },
];

/// The pre-tokenizer of this name.
pub(crate) fn find(name: &str) -> Option<&'static Pre> {
    TABLE.iter().find(|pre| pre.names.contains(&name))
}

/// Every name there is, in the table's order.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|pre| pre.names.iter().copied())
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;
    use proptest::prelude::*;

    use super::*;
    use crate::tokenizer::pre::split;

    const ENDINGS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const BLANKS: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";
    const CUT_GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const CUT_BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
    const CUT_MARKS: &str = r"[\p{P}$+<=>^~|]+";

    /// The expressions of each entry, outermost first, as the models' files spell them.
    fn expressions(name: &str) -> Vec<String> {
        let llama = |words: &str, digits: &str, marks: &str| {
            vec![format!(r"{ENDINGS}|{words}|{digits}| ?{marks}|{BLANKS}")]
        };
        let word = r"[^\r\n\p{L}\p{N}]?\p{L}+";
        let marks = r"[^\s\p{L}\p{N}]+[\r\n]*";
        let cased = |but: &str, end: &str, tail: &str| {
            let (upper, lower) = (r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}");
            let lead = r"[^\r\n\p{L}\p{N}]?";
            format!(
                "{lead}[{upper}{but}]*[{lower}{but}]+{end}|{lead}[{upper}{but}]+[{lower}{but}]*{end}|{tail}"
            )
        };
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let ending = format!("{ENDINGS}?");
        match name {
            "default" => owned(&[CUT_MARKS, CUT_GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            "gpt-2" => owned(&[CUT_GPT2]),
            "smollm" => owned(&[r"\p{N}", CUT_GPT2]),
            "llama-bpe" | "dbrx" => llama(word, r"\p{N}{1,3}", marks),
            "qwen2" => llama(word, r"\p{N}", marks),
            "qwen35" => llama(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", r"[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),
            "laguna" => [owned(&[r"[^\n]+|[\n]+"]), llama(word, r"\p{N}", marks)].concat(),
            "ufakzeka" => vec![format!(r"{word}|\p{{N}}| ?{marks}|{BLANKS}")],
            "bailingmoe" => {
                let blanks = r"\s*[\r\n]|\s+(?!\S)|\s+";
                vec![format!(r"'(?i:[sdmt]|ll|ve|re)|{word}|\p{{N}}| ?{marks}|{blanks}")]
            }
            "seed-coder" => llama(word, r"\p{N}", r"[^\s\p{L}\p{N}\r\n]+"),
            "minicpm5" => [owned(&[r"\p{N}{1,3}"]), llama(word, r"\p{N}+", marks)].concat(),
            "gpt-4o" | "granite-embed-multi-97m" => {
                vec![cased("", &ending, &format!(r"\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}"))]
            }
            "tekken" => vec![cased("", "", &format!(r"\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{BLANKS}"))],
            "kimi-k2" => {
                let tail = format!(r"\p{{N}}{{1,3}}| ?{marks}|{BLANKS}");
                vec![format!(r"[\p{{Han}}]+|{}", cased(r"&&[^\p{Han}]", &ending, &tail))]
            }
            "falcon" => owned(&[r"[\p{P}$+<=>^~|`]+", CUT_GPT2, "[0-9][0-9][0-9]"]),
            "deepseek-coder" => owned(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
            "deepseek-v3" => {
                let words = r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+";
                let main = format!(r"{words}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{BLANKS}");
                vec![r"\p{N}{1,3}".to_owned(), "[一-龥\u{3040}-ゟ゠-ヿ]+".to_owned(), main]
            }
            "bloom" => owned(&[CUT_BLOOM]),
            "viking" => owned(&[CUT_BLOOM, r"\p{N}"]),
            "gemma4" => owned(&[r"[^\n]+|[\n]+"]),
            _ => Vec::new(),
        }
    }

    /// Cuts by expressions, each within the pieces of the one before.
    fn cut<'t>(expressions: &[Regex], text: &'t str) -> Vec<&'t str> {
        let mut pieces = vec![text];
        for expression in expressions {
            let inside = |piece: &'t str| {
                let (mut parts, mut end) = (Vec::new(), 0);
                for found in
                    expression.find_iter(piece).map(Result::unwrap).filter(|found| !found.as_str().is_empty())
                {
                    parts.extend([&piece[end..found.start()], &piece[found.range()]]);
                    end = found.end();
                }
                parts.push(&piece[end..]);
                parts
            };
            pieces = pieces.into_iter().flat_map(inside).filter(|piece| !piece.is_empty()).collect();
        }
        pieces
    }

    #[test]
    fn every_entry_cuts_as_its_expressions_do() {
        let alphabet: Vec<char> =
            "aAzZ'sSdDlLvVeErRtTmM019½٣ \t\n\r\u{a0}\u{3000}.,!?/(<|>_$+~`-éÉßǅʰ東京ヶへ가힣ࠀ।،…\u{301}\u{903}\u{200d}😀"
                .chars()
                .collect();
        let texts = prop::collection::vec(prop::sample::select(alphabet), 0..24);
        for pre in TABLE {
            let expressions = expressions(pre.names[0]);
            // DeepSeek's first one spells its letters out; the recorded vectors check it.
            if expressions.is_empty() {
                assert_eq!(pre.names, ["deepseek-llm"]);
                continue;
            }
            let expressions: Vec<Regex> = expressions.iter().map(|s| Regex::new(s).unwrap()).collect();
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            let result = runner.run(&texts, |chars| {
                let text: String = chars.into_iter().collect();
                let mut got = Vec::new();
                split(pre.stages, &text, &mut |word| got.push(word.to_owned()));
                prop_assert_eq!(got, cut(&expressions, &text), "{} {:?}", pre.names[0], text);
                Ok(())
            });
            result.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn names_are_unique() {
        let mut all: Vec<&str> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn ranges_ascend() {
        for ranges in [CASED, WIDE_MARKS, BLOOM_STOPS] {
            assert!(ranges.iter().all(|(first, last)| first <= last));
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
