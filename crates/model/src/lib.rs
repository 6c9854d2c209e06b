//! The nouns of Tolv and their rules: names, environment, formation, slug, release.
//!
//! Nothing here does I/O, knows async or reads a clock: time comes in as an argument, and the
//! crate's `clippy.toml` bans the rest. Every type is parsed once at the edge; a value in hand
//! is a valid one.

#![warn(missing_docs)]

pub mod access;
pub mod app_json;
pub mod buildpack;
pub mod command;
pub mod config;
pub mod cron;
pub mod dotenv;
pub mod drain;
pub mod env;
pub mod formation;
pub mod health;
pub mod id;
pub mod ledger;
pub mod name;
pub mod operation;
pub mod process_env;
pub mod procfile;
pub mod profile;
pub mod release;
pub mod rollout;
pub mod root_folder;
pub mod run;
pub mod service;
pub mod shortage;
pub mod size;
pub mod slug;
pub mod source;
pub mod stack;
pub mod static_json;
pub mod status;
pub mod timetable;
pub mod tree_path;
pub mod unit;
