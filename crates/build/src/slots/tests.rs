use tolv_testkit::Home;

use super::*;

fn names(builds: &Path) -> Vec<String> {
    let list = fs::read_dir(builds).unwrap().flatten();
    let names = list.map(|entry| entry.file_name().into_string().unwrap());
    let mut folders: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    folders.sort();
    folders
}

#[test]
fn each_build_has_the_lowest_folder_that_is_free() {
    let home = Home::new();
    let builds = home.path().join("builds");
    let one = Slot::take(&builds).unwrap();
    let two = Slot::take(&builds).unwrap();
    let three = Slot::take(&builds).unwrap();
    assert_eq!([&one, &two, &three].map(|slot| slot.path().file_name().unwrap()), ["1", "2", "3"]);
    drop(two);
    assert_eq!(names(&builds), ["1", "3"]);
    let again = Slot::take(&builds).unwrap();
    assert_eq!(again.path(), builds.join("2"));
    drop((one, again, three));
    assert!(names(&builds).is_empty());
}

#[test]
fn what_killed_builds_left_goes_and_what_is_held_stays() {
    let home = Home::new();
    let builds = home.path().join("builds");
    home.write("builds/1/app/half", "");
    home.write("builds/4/app/locked/half", "");
    home.write("builds/notes/kept", "");
    files::set_mode(&builds.join("4/app/locked"), 0o000).unwrap();
    let other =
        Slot { folder: builds.join("3"), cleaning: CLEANING, _lock: held(&builds.join("3.lock")) };
    home.write("builds/3/app/busy", "");
    let slot = Slot::take(&builds).unwrap();
    assert_eq!(slot.path(), builds.join("1"));
    assert!(fs::read_dir(slot.path()).unwrap().next().is_none(), "it is empty");
    assert_eq!(names(&builds), ["1", "3", "notes"]);
    assert!(other.path().join("app/busy").exists());
}

fn held(path: &Path) -> Lock {
    Lock::try_take(path).unwrap().unwrap()
}
