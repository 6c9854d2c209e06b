use tolv_testkit::Home;

use super::*;

fn program(home: &Home, text: &str, mode: u32) -> PathBuf {
    home.write("bin/program", text);
    let path = home.path().join("bin/program");
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn the_file_is_the_running_image_whatever_becomes_of_its_path_and_of_the_file() {
    for mode in [MODE, 0o700] {
        let home = Home::new();
        let started = program(&home, "first", mode);
        // As /proc/self/exe is: it leads to the file and not to its path.
        let held = File::open(&started).unwrap();
        let running =
            PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)));
        let image = Image::at(home.path(), &running, &started);
        image.require().unwrap();
        assert!(!image.path().exists(), "nothing is to be started from it");
        let is_first = || {
            let file = image.file().unwrap();
            assert_eq!(file, image.path());
            assert_eq!(fs::read_to_string(&file).unwrap(), "first");
            assert_eq!(fs::metadata(file).unwrap().mode() & 0o7777, MODE);
        };
        is_first();
        let is_linked = fs::metadata(image.path()).unwrap().ino() == held.metadata().unwrap().ino();
        assert_eq!(is_linked, mode == MODE);
        fs::set_permissions(&started, Permissions::from_mode(0o600)).unwrap();
        is_first();
        fs::remove_file(&started).unwrap();
        is_first();
        fs::write(&started, "second").unwrap();
        fs::remove_dir_all(home.path().join(FOLDER)).unwrap();
        image.require().unwrap();
        is_first();
        for other in
            [&|path: &Path| fs::write(path, "x"), &|path: &Path| symlink("/bin/true", path)]
                as [&dyn Fn(&Path) -> io::Result<()>; 2]
        {
            fs::remove_file(image.path()).unwrap();
            other(image.path()).unwrap();
            is_first();
        }
        fs::remove_file(image.path()).unwrap();
        fs::create_dir(image.path()).unwrap();
        is_first();
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(home.path().join(FOLDER)).unwrap().count(), 1);
    }
}

#[test]
fn another_program_s_file_is_replaced() {
    let home = Home::new();
    let first = program(&home, "first", MODE);
    Image::at(home.path(), &first, &first).file().unwrap();
    fs::remove_file(&first).unwrap();
    let second = program(&home, "other", MODE);
    let image = Image::at(home.path(), &second, &second);
    assert_eq!(fs::read_to_string(image.file().unwrap()).unwrap(), "other");
}

#[test]
fn where_it_cannot_be_kept_the_file_that_was_started_serves_as_long_as_it_is_the_same() {
    let home = Home::new();
    let started = program(&home, "first", MODE);
    // In the folder's place.
    home.write(FOLDER, "");
    let image = Image::at(home.path(), &started, &started);
    assert_eq!(image.file().unwrap(), started);
    let held = File::open(&started).unwrap();
    let running =
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)));
    fs::remove_file(&started).unwrap();
    program(&home, "other", MODE);
    Image::at(home.path(), &running, &started).file().unwrap_err();
}

/// As in a small disk of a state folder.
#[test]
fn on_another_disk_it_is_copied_only_when_it_has_to_be() {
    let home = Home::new();
    let memory = Path::new("/dev/shm").join(format!("tolv-image-{}", std::process::id()));
    fs::create_dir(&memory).unwrap();
    let started = program(&home, "first", MODE);
    if fs::metadata(&memory).unwrap().dev() != fs::metadata(&started).unwrap().dev() {
        let held = File::open(&started).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&held);
        let running = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let image = Image::at(&memory, &running, &started);
        let file = image.file().unwrap();
        assert_eq!(fs::read_link(&file).unwrap(), started);
        fs::remove_file(&started).unwrap();
        program(&home, "other", MODE);
        assert_eq!(image.file().unwrap(), file);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first");
        assert!(!fs::symlink_metadata(&file).unwrap().is_symlink());
    }
    fs::remove_dir_all(memory).unwrap();
}
