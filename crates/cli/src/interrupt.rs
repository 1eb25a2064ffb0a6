//! Ctrl-C. While a [`Listening`] lives, it sets a flag that the work at hand polls; a second one, or one that nobody
//! listens for, ends the process with status 130.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::failure::INTERRUPTED;

static PRESSED: AtomicBool = AtomicBool::new(false);
static LISTENERS: AtomicUsize = AtomicUsize::new(0);
static INSTALL: Once = Once::new();

/// Somebody polls for Ctrl-C until this is dropped.
pub(crate) struct Listening(());

/// Starts listening; an earlier press is forgotten.
pub(crate) fn listen() -> Listening {
    INSTALL.call_once(|| {
        // Without a handler Ctrl-C still ends the process, as it does by default.
        let _ = ctrlc::set_handler(on_signal);
    });
    PRESSED.store(false, Ordering::SeqCst);
    LISTENERS.fetch_add(1, Ordering::SeqCst);
    Listening(())
}

impl Listening {
    /// Whether Ctrl-C was pressed since [`listen`].
    pub(crate) fn pressed(&self) -> bool {
        PRESSED.load(Ordering::SeqCst)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::SeqCst);
    }
}

fn on_signal() {
    if LISTENERS.load(Ordering::SeqCst) == 0 || PRESSED.swap(true, Ordering::SeqCst) {
        std::process::exit(INTERRUPTED.into());
    }
}
