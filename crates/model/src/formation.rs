//! How many processes of each type run (factor VIII).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{NameError, ProcessName, ProcessType};

/// Most processes of one type.
pub const MAX_QUANTITY: u16 = 1000;

/// A formation that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// Not `type=quantity`.
    #[error("`{0}` is not `<process type>=<quantity>`, as in `web=2`")]
    Syntax(String),
    /// The type is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a number, or above [`MAX_QUANTITY`].
    #[error("the quantity in `{0}` is not a number from 0 to {MAX_QUANTITY}")]
    Quantity(String),
    /// One type twice.
    #[error("process type `{0}` is given twice")]
    Twice(ProcessType),
    /// `release` is the release phase, not a process that stays up.
    #[error("`release` is the release phase: it runs once before the others and has no quantity")]
    Release,
}

/// Process type → quantity. Types that are absent are not said, which is not the same as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formation(pub BTreeMap<ProcessType, u16>);

/// What runs of the types for which nobody has given a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// One `web` and nothing else, as on other platforms: a type may be there to be run by hand.
    Web,
    /// One of each, as with `foreman start`.
    Each,
}

impl Formation {
    /// What runs when nobody said otherwise; `release` is left out.
    pub fn first<'a>(types: impl IntoIterator<Item = &'a ProcessType>, first: First) -> Self {
        let quantity = |kind: &ProcessType| u16::from(first == First::Each || kind.is_web());
        let types = types.into_iter().filter(|kind| !kind.is_release());
        Self(types.map(|kind| (kind.clone(), quantity(kind))).collect())
    }

    /// The types of which something runs, with their quantities.
    #[must_use]
    pub fn running(&self) -> Self {
        let running = self.0.iter().filter(|(_, quantity)| **quantity > 0);
        Self(running.map(|(kind, quantity)| (kind.clone(), *quantity)).collect())
    }

    /// This formation with `other`'s quantities in place of its own where `other` has any.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().map(|(kind, quantity)| (kind.clone(), *quantity)));
        self
    }

    /// Every process by name, in order: `web.1`, `web.2`, `worker.1`.
    pub fn processes(&self) -> impl Iterator<Item = ProcessName> + '_ {
        self.0.iter().flat_map(|(process_type, &quantity)| {
            (1..=quantity).map(|number| ProcessName { process_type: process_type.clone(), number })
        })
    }
}

impl FromStr for Formation {
    type Err = FormationError;
    /// Reads `web=2,worker=1`; spaces around the parts are fine.
    fn from_str(text: &str) -> Result<Self, FormationError> {
        let mut formation = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let (kind, quantity) =
                part.split_once('=').ok_or_else(|| FormationError::Syntax(part.to_owned()))?;
            let kind: ProcessType = kind.trim().parse()?;
            if kind.is_release() {
                return Err(FormationError::Release);
            }
            let quantity = quantity.trim().parse().ok().filter(|&n| n <= MAX_QUANTITY);
            let quantity = quantity.ok_or_else(|| FormationError::Quantity(part.to_owned()))?;
            if formation.insert(kind.clone(), quantity).is_some() {
                return Err(FormationError::Twice(kind));
            }
        }
        Ok(Self(formation))
    }
}

impl fmt::Display for Formation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (kind, quantity)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}={quantity}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
