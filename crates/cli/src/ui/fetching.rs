//! What is shown while a model is fetched: a bar on a terminal, plain lines elsewhere.

use std::cell::RefCell;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kinglet::catalog::{Event, Progress};

use super::{Ui, bytes};
use crate::interrupt::{self, Listening};

/// Follows one pull. While it lives, Ctrl-C stops the pull and leaves what has been fetched for the next one.
pub(crate) struct Fetching<'a> {
    ui: &'a Ui,
    listening: Listening,
    bar: RefCell<Option<ProgressBar>>,
}

impl<'a> Fetching<'a> {
    /// Starts listening for Ctrl-C; nothing is shown before the first event.
    pub(crate) fn new(ui: &'a Ui) -> Fetching<'a> {
        Fetching { ui, listening: interrupt::listen(), bar: RefCell::new(None) }
    }

    fn begin(&self, file: &str, done: u64, total: Option<u64>) {
        self.clear();
        if !self.ui.draws() {
            let size = total.map(|t| format!(" ({})", bytes(t))).unwrap_or_default();
            let resumed = if done > 0 { format!(", going on at {}", bytes(done)) } else { String::new() };
            self.ui.note(format_args!("fetching {file}{size}{resumed}"));
            return;
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_style(style(total.is_some()));
        bar.set_message(file.to_owned());
        bar.set_position(done);
        bar.reset_eta();
        self.bar.replace(Some(bar));
    }

    fn advance(&self, done: u64) {
        if let Some(bar) = self.bar.borrow().as_ref() {
            bar.set_position(done);
        }
    }

    fn clear(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: String) {
        self.clear();
        self.ui.note(text);
    }
}

impl Progress for Fetching<'_> {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Trying { source } => self.say(format!("trying the {source}")),
            Event::PassedOver { source, why } => self.say(format!("{source}: {why}")),
            Event::Waiting => self.say("another process is fetching this model: waiting for it".into()),
            Event::Begin { file, done, total } => self.begin(file, done, total),
            Event::Advance { done } => self.advance(done),
            Event::Retry { why } => self.say(format!("{why}: trying again")),
            Event::Verify { file } if self.ui.verbose() > 0 => self.say(format!("checking {file}")),
            Event::Done { .. } => self.clear(),
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.listening.pressed()
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(has_end: bool) -> ProgressStyle {
    let template = if has_end {
        "{msg}  {bar:30}  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left"
    } else {
        "{msg}  {spinner}  {decimal_bytes}  {decimal_bytes_per_sec}"
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}
