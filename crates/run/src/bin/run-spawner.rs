//! The spawner with the shim alone, for the tests of this crate.

fn main() {
    tolv_sandbox::spawner_main(&[tolv_run::SHIM]);
}
