//! Log-probabilities in the two wordings of the API.

use kinglet_engine::Token;
use kinglet_text::tokenizer::Tokenizer;

use crate::wire::{ChatLogprob, ChatLogprobs, TextLogprobs, TokenLogprob};

/// What the API says for a token that cannot be.
const IMPOSSIBLE: f32 = -9999.0;

/// As chat answers have them; none when they were not asked for.
pub(crate) fn chat(tokenizer: &Tokenizer, tokens: &[Token]) -> Option<ChatLogprobs> {
    let token = |id: u32, logprob: f32| TokenLogprob {
        token: text(tokenizer, id),
        logprob: logprob.max(IMPOSSIBLE),
        bytes: tokenizer.token_bytes(id).unwrap_or_default().to_vec(),
    };
    let content = visible(tokens).map(|(id, logprobs, _)| ChatLogprob {
        chosen: token(id, logprobs.chosen),
        top_logprobs: logprobs.top.iter().map(|&(id, logprob)| token(id, logprob)).collect(),
    });
    asked(tokens).then(|| ChatLogprobs { content: content.collect(), refusal: None })
}

/// As text answers have them, from a place in the text on that is counted in characters and moved along.
pub(crate) fn words(tokenizer: &Tokenizer, tokens: &[Token], place: &mut usize) -> Option<TextLogprobs> {
    let mut all = TextLogprobs::default();
    for (id, logprobs, said) in visible(tokens) {
        all.tokens.push(text(tokenizer, id));
        all.token_logprobs.push(logprobs.chosen.max(IMPOSSIBLE));
        let top = logprobs.top.iter().map(|&(id, logprob)| (text(tokenizer, id), logprob.max(IMPOSSIBLE)));
        all.top_logprobs.push(top.collect());
        all.text_offset.push(*place);
        *place += said.chars().count();
    }
    asked(tokens).then_some(all)
}

fn asked(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| token.logprobs.is_some())
}

/// All but the token that ends the text.
fn visible(tokens: &[Token]) -> impl Iterator<Item = (u32, &kinglet_text::sample::Logprobs, &str)> {
    let visible = tokens.iter().filter(|token| !token.end);
    visible.filter_map(|token| Some((token.id, token.logprobs.as_ref()?, token.text.as_str())))
}

fn text(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.token_text(id).unwrap_or_default().into_owned()
}
