//! Codebase to slug: detect, plan, run the plan in a sandbox, pack, cache.
