//! Process streams as an event stream: framing, spool, views.
