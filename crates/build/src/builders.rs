//! One module per language; each looks at the source and says what to run.
//!
//! Order matters where a codebase shows signs of several: the first that fits wins, and the build
//! output names it. `Procfile` alone comes last.

pub mod go;
pub mod node;
pub mod procfile;
pub mod python;
pub mod rust;
pub mod static_site;
