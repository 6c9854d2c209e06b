//! Serves a folder of files over HTTP.
