//! A bar over work in equal steps; plain silence where no bar can be drawn.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Ui;

/// Follows work whose number of steps becomes known as it goes.
pub(crate) struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Steps called `what`; nothing is shown before the first one.
    pub(crate) fn new(ui: &Ui, what: &str) -> Self {
        let bar = ui.draws().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            let template = format!("{what} {{pos}}/{{len}} {{bar:24}} {{msg}} ({{eta}} left)");
            bar.set_style(
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { bar }
    }

    /// `done` of `all` steps are done.
    pub(crate) fn set(&self, done: usize, all: usize, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(message.to_owned());
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
