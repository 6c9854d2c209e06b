//! The spawner alone, for the tests of this crate.

fn main() {
    tolv_sandbox::spawner_main(&[]);
}
