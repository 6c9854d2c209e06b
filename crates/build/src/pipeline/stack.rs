//! The stack in the pipeline: which one, and what depends on it.

use tolv_model::slug::Digest;

use super::{Pipeline, Request};
use crate::stacks::{Stack, Stacks};
use crate::{Error, Event, files};

/// The stack that a build takes place on; it is made where it is not here yet.
pub(super) fn stack(
    request: &Request,
    events: &mut dyn FnMut(Event),
) -> Result<Option<Stack>, Error> {
    let Some(name) = &request.host.stack else { return Ok(None) };
    if !request.level.has_own_root() {
        events(Event::Warning(format!(
            "the stack {name} (TOLV_STACK) needs isolation level strict or user: at level {} builds \
             and processes use the programs of this machine",
            request.level
        )));
        return Ok(None);
    }
    let stacks = Stacks::open(&request.stacks)?.with_proofs(request.proofs.clone());
    let stack = stacks.ensure(name, &|| request.cancel.is_cancelled(), events)?;
    events(Event::Heading(format!("Stack {}", stack.id)));
    Ok(Some(stack))
}

impl Pipeline<'_> {
    /// A key of something that depends on what the steps are given, beside what the key says.
    pub(super) fn keyed(&self, key: Digest) -> Digest {
        let key = self.request.config.keyed(key);
        let on = |stack: &Stack| {
            let text = format!("{key}\ntolv stack {} {}", stack.id.name, stack.id.digest());
            Digest::of(text.as_bytes())
        };
        self.stack.as_ref().map_or(key, on)
    }

    /// What was compiled on one stack may not run on another.
    pub(super) fn empty_cache_of_another_stack(
        &self,
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let record = self.cache.with_extension("stack");
        let before = std::fs::read_to_string(&record).unwrap_or_default();
        let now = self.stack.as_ref().map(|stack| stack.id.digest().to_string());
        let now = now.unwrap_or_default();
        if before == now {
            return Ok(());
        }
        if self.cache.is_dir() {
            events(Event::Heading(
                "Emptying the build cache, which is of another stack".to_owned(),
            ));
            files::remove_until(&self.cache, &|| self.cancelled())?;
        }
        if let Some(folder) = record.parent() {
            files::make_folder(folder)?;
        }
        files::write_whole(&record, now.as_bytes())
    }
}
