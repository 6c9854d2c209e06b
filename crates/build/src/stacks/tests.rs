use super::*;

fn make(stacks: &Stacks, name: &str) -> Stack {
    let mut told = Vec::new();
    let made = stacks.make(&name.parse().unwrap(), &|| false, &mut |event| {
        told.push(String::from_utf8_lossy(&event.text()).into_owned());
    });
    eprintln!("{}", told.join("\n"));
    made.unwrap()
}

#[test]
fn the_machines_own_packages_make_a_stack() {
    let home = tempfile::tempdir().unwrap();
    let stacks = Stacks::open(home.path()).unwrap();
    let made = make(&stacks, "host");
    for _ in 0..3 {
        let begun = Instant::now();
        stacks.get(&made.id).unwrap();
        eprintln!("proven in {:?}", begun.elapsed());
    }
}
