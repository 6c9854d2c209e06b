//! The user's own terminal while a process elsewhere has it.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tolv_model::run::WindowSize;

/// What a terminal that says nothing has.
const USUAL: WindowSize = WindowSize { rows: 24, columns: 80 };

/// Every key goes on as it is typed, Ctrl-C too; as before once this is dropped.
pub(super) struct Raw {
    before: Termios,
}

impl Raw {
    pub(super) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // From here on it is restored, whatever comes.
        let restore = Self { before };
        tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(restore)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Hung up: then there is nothing to restore.
        tcsetattr(io::stdin(), OptionalActions::Drain, &self.before).ok();
    }
}

/// The terminal's size now.
pub(super) fn size() -> WindowSize {
    let found = tcgetwinsize(io::stdin()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    found.map_or(USUAL, |size| WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Whether somebody sits in front of it.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
