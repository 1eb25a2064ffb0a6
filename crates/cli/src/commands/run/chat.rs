//! A conversation in the terminal.

use std::path::Path;

use anyhow::{Context, Result};
use kinglet::chat::Message;
use kinglet::{Model, Size};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::answer::{self, Answer, Asking};
use crate::commands::given;
use crate::failure::hinted;
use crate::ui::Ui;

const HELP: &str = "\
/help             this list
/clear            forget the conversation
/system [TEXT]    set what the model is told first, or take it away
/save FILE        write the conversation as JSON
/load FILE        go on with a saved conversation
/stats            how fast the last answer came, and how much of the context is used
/bye              leave (Ctrl-D too)

Several lines: begin with \"\"\" and end with \"\"\", or end a line with \\.
Ctrl-C stops an answer and keeps the conversation.";

/// Marks the beginning and the end of several lines.
const FENCE: &str = "\"\"\"";

/// The part of the context that is kept free for an answer, as a divisor.
const ANSWER_SHARE: usize = 4;

/// Talks until the person leaves.
pub(super) fn converse(model: &Model, system: Option<&str>, asking: Asking, ui: &Ui) -> Result<()> {
    if model.template_source().is_none() {
        let way_out = "give a prompt to continue: kinglet run MODEL --raw \"Once upon a time\"";
        return Err(hinted(
            format!("{} has no chat template: it only continues text", model.name()),
            way_out,
        ));
    }
    ui.note(format_args!(
        "{}, context {} tokens. /help lists commands, Ctrl-D leaves.",
        model.name(),
        model.context()
    ));
    let mut chat = Chat {
        model,
        system: system.map(str::to_owned),
        messages: Vec::new(),
        unseen: 0,
        asking,
        last: None,
        ui,
    };
    let mut editor = DefaultEditor::new().context("the terminal")?;
    while let Some(input) = read(&mut editor, ui)? {
        let _full = editor.add_history_entry(&input);
        if input.trim().is_empty() {
            continue;
        }
        match chat.turn(input.trim()) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                crate::failure::report(&error, ui);
            }
        }
    }
    Ok(())
}

/// One input of one or several lines; none when the person leaves.
fn read(editor: &mut DefaultEditor, ui: &Ui) -> Result<Option<String>> {
    let mut input = String::new();
    let mut prompt = ">>> ";
    loop {
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) if input.is_empty() => {
                ui.note("Ctrl-D or /bye leaves");
                continue;
            }
            Err(ReadlineError::Interrupted) => return Ok(Some(String::new())),
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error).context("the terminal"),
        };
        prompt = "... ";
        let fenced = input.starts_with(FENCE) || (input.is_empty() && line.starts_with(FENCE));
        match line.strip_suffix('\\') {
            Some(line) if !fenced => input = input + line + "\n",
            _ => input = input + &line + "\n",
        }
        let body = input.strip_prefix(FENCE);
        match body.map(|body| body.trim_end().strip_suffix(FENCE)) {
            None if !line.ends_with('\\') => return Ok(Some(input)),
            Some(Some(body)) => return Ok(Some(body.to_owned())),
            _ => {}
        }
    }
}

/// A conversation so far.
struct Chat<'a> {
    model: &'a Model,
    system: Option<String>,
    messages: Vec<Message>,
    /// How many of the oldest messages the context has no room for.
    unseen: usize,
    asking: Asking,
    last: Option<Answer>,
    ui: &'a Ui,
}

impl Chat<'_> {
    /// Does what was typed; false when the person wants to leave.
    fn turn(&mut self, input: &str) -> Result<bool> {
        let (command, rest) = input.split_once(char::is_whitespace).unwrap_or((input, ""));
        let rest = rest.trim();
        match command {
            "/bye" | "/exit" | "/quit" => return Ok(false),
            "/help" | "/?" => self.ui.line(HELP)?,
            "/clear" => {
                (self.messages, self.unseen) = (Vec::new(), 0);
                self.ui.note("forgotten");
            }
            "/system" => {
                self.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.ui.note(if rest.is_empty() {
                    "nothing is told first"
                } else {
                    "told first from now on"
                });
            }
            "/save" => self.save(named(command, rest)?)?,
            "/load" => self.load(named(command, rest)?)?,
            "/stats" => self.stats()?,
            _ if is_command(command) => {
                return Err(hinted(format!("there is no command {command}"), "/help lists them"));
            }
            _ => self.ask(input)?,
        }
        Ok(true)
    }

    fn ask(&mut self, input: &str) -> Result<()> {
        self.messages.push(Message::new("user", input));
        let answer = self.answer();
        match &answer {
            Ok(answer) => self.messages.push(Message::new("assistant", answer.text.as_str())),
            Err(_) => drop(self.messages.pop()),
        }
        self.last = Some(answer?);
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer> {
        let prompt = self.prompt()?;
        self.asking.sampler.seed = self.asking.sampler.seed.wrapping_add(1);
        let answer = answer::ask(self.model, prompt, &self.asking, answer::print)?;
        self.ui.line("\n")?;
        if let Some(why) = answer.cut(self.model, &self.asking) {
            self.ui.note(why);
        }
        if self.ui.verbose() > 0 {
            self.ui.note(answer.figures());
        }
        Ok(answer)
    }

    /// The conversation as the model is going to see it: without its oldest turns when the context has no room for
    /// them and an answer.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        let context = self.model.context();
        let answer = (context / ANSWER_SHARE).min(self.asking.max_tokens.unwrap_or(usize::MAX));
        let unseen = self.unseen;
        loop {
            let prompt = self.model.prompt(&self.with_system(self.unseen))?;
            let later = self.messages.iter().skip(self.unseen + 1).position(|message| message.role == "user");
            match later {
                Some(turn) if prompt.len() + answer > context => self.unseen += turn + 1,
                _ => {
                    if self.unseen > unseen {
                        self.ui.note(format_args!(
                            "the context of {context} tokens is full: the model no longer sees the first {} \
                             messages; /clear begins anew",
                            self.unseen
                        ));
                    }
                    return Ok(prompt);
                }
            }
        }
    }

    fn with_system(&self, unseen: usize) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text.as_str()));
        system.chain(self.messages.iter().skip(unseen).cloned()).collect()
    }

    fn save(&self, path: &Path) -> Result<()> {
        let messages: Vec<Value> = self.with_system(0).iter().map(to_json).collect();
        std::fs::write(path, serde_json::to_vec_pretty(&messages)?)
            .with_context(|| path.display().to_string())?;
        self.ui.note(format_args!("{} messages in {}", messages.len(), path.display()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<()> {
        let bytes = given::text(path)?;
        let list: Vec<Value> = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
        let mut messages = list.into_iter().map(Message::from_json).collect::<Result<Vec<_>, _>>()?;
        let system = messages
            .first()
            .filter(|m| m.role == "system")
            .and_then(|m| m.content.as_ref()?.as_str().map(str::to_owned));
        if system.is_some() {
            messages.remove(0);
        }
        (self.system, self.messages, self.unseen) = (system, messages, 0);
        self.ui.note(format_args!("{} messages from {}", self.with_system(0).len(), path.display()));
        Ok(())
    }

    fn stats(&self) -> Result<()> {
        let used = if self.messages.is_empty() {
            0
        } else {
            self.model.prompt(&self.with_system(self.unseen))?.len()
        };
        self.ui.line(format_args!("{used} of {} tokens of context used", self.model.context()))?;
        match &self.last {
            Some(answer) => self.ui.line(answer.figures()),
            None => self.ui.line(format_args!(
                "no answer yet · peak memory {}",
                kinglet::hardware::peak_memory()
                    .map_or_else(|| "unknown".into(), |bytes| Size(bytes).to_string())
            )),
        }
    }
}

/// Whether a first word looks like a command, not like a path or a fraction.
fn is_command(word: &str) -> bool {
    word.strip_prefix('/')
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase()))
}

fn named<'a>(command: &str, rest: &'a str) -> Result<&'a Path> {
    if rest.is_empty() {
        Err(hinted(format!("{command} needs a file"), format!("{command} chat.json")))
    } else {
        Ok(Path::new(rest))
    }
}

fn to_json(message: &Message) -> Value {
    json!({ "role": message.role, "content": message.content })
}
