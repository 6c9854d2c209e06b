//! The use cases: one controller per deploy joins the stages.
