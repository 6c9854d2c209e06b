//! What everything below the base may take together: the rest of the machine is the platform's.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{reason, write};
use crate::level::Reason;

/// Upper bounds of all launches together, apps and builds; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Sets it in the base of one controller.
pub(super) fn set(
    controller: &str,
    base: &Path,
    is_v2: bool,
    budget: &Budget,
) -> Result<(), Reason> {
    match (controller, budget.memory, budget.processes) {
        ("memory", Some(bytes), _) if is_v2 => {
            // The kernel kills below the base until it fits, where it was more.
            write(&base.join("memory.max"), &bytes.to_string())
        }
        ("memory", Some(bytes), _) => set_v1_memory(base, bytes),
        ("pids", _, Some(count)) => write(&base.join("pids.max"), &count.to_string()),
        _ => Ok(()),
    }
}

/// Swap counts too where it is accounted; that limit may never be the smaller of the two, so that
/// the order depends on which way it goes.
fn set_v1_memory(base: &Path, bytes: u64) -> Result<(), Reason> {
    let (memory, swap): (PathBuf, PathBuf) =
        (base.join("memory.limit_in_bytes"), base.join("memory.memsw.limit_in_bytes"));
    // Without hierarchy the groups below would not count; kernels from 5.11 on have no other.
    let hierarchy = base.join("memory.use_hierarchy");
    let text =
        fs::read_to_string(&hierarchy).map_err(|error| reason("read", &hierarchy, &error))?;
    if text.trim() != "1" {
        return Err(Reason::new(format!("{} is 0", hierarchy.display()), 0));
    }
    let text = bytes.to_string();
    write(&swap, &text).ok();
    write(&memory, &text)?;
    write(&swap, &text).ok();
    Ok(())
}
