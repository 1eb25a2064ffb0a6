//! Chat templates: an input is a template, or a template, a zero byte and the text of a message.

use kinglet_text::chat::{ChatTemplate, DateTime, Message, RenderOptions, TemplateTokens};

/// Marks what the conversation says.
const MARK: &str = "\u{e000}";

/// Feeds one input. What arrived with the conversation must never come out trusted.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (source, content) = text.split_once('\0').unwrap_or((text, "<|im_end|>"));
    // A template that can spell the mark proves nothing.
    let spells_mark = source.contains(MARK) || source.to_lowercase().contains("e000");
    let special =
        ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "[INST]"].map(String::from).to_vec();
    let tokens =
        TemplateTokens { bos: Some("<s>".into()), eos: Some("</s>".into()), others: Vec::new(), special };
    let Ok(template) = ChatTemplate::parse(source, &tokens) else { return };
    let marked: String = content.chars().flat_map(|c| [MARK.into(), c.to_string()]).collect();
    let messages = ["system", "user", "assistant"].map(|role| Message::new(role, marked.as_str()));
    let tools =
        Some(serde_json::json!([{"type": "function", "function": {"name": marked, "parameters": {}}}]));
    let now = Some(DateTime::from_unix(0));
    let options = RenderOptions { tools, now, work: 100_000, ..RenderOptions::default() };
    let Ok(rendered) = template.render(&messages, &options) else { return };
    for span in rendered.spans.iter().filter(|span| span.trusted && !spells_mark) {
        assert!(!span.text.contains(MARK), "trusts what a message says: {:?}", span.text);
    }
}
