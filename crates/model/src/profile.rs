//! Scripts that are sourced before each process: `.profile.d/*.sh` in the order of their names, then
//! `.profile`, by bash, as on Heroku.

use crate::slug::Entry;

/// Sources the files before `--`, and becomes the words behind it. A script that ends the shell ends the
/// process, and that is told.
const SCRIPT: &str = r#"_tolv_words=("$@") _tolv_at=0
set --
while [ "${_tolv_words[_tolv_at]}" != -- ]; do
    trap 'echo "${_tolv_words[_tolv_at]##*/app/} ended the process before its command was started" >&2' EXIT
    if [ -f "${_tolv_words[_tolv_at]}" ]; then . "${_tolv_words[_tolv_at]}"; fi
    _tolv_at=$((_tolv_at + 1))
done
trap - EXIT
exec "${_tolv_words[@]:_tolv_at+1}""#;
/// What sources them.
const SHELL: &str = "/bin/bash";

/// The scripts of a slug, in order.
pub fn scripts(entries: &[(Vec<u8>, Entry)]) -> Vec<String> {
    let is_script = |path: &[u8]| {
        let name = path.strip_prefix(b".profile.d/");
        name.is_some_and(|name| {
            !name.contains(&b'/') && name.ends_with(b".sh") && !name.starts_with(b".")
        })
    };
    let files = entries.iter().filter(|(_, entry)| *entry != Entry::Directory);
    let mut found: Vec<&[u8]> =
        files.map(|(path, _)| path.as_slice()).filter(|path| is_script(path)).collect();
    found.sort_unstable();
    let has = |path: &[u8]| {
        entries.iter().any(|(known, entry)| known == path && *entry != Entry::Directory)
    };
    if has(b".profile") {
        found.push(b".profile");
    }
    // A name that is not UTF-8 is nobody's script.
    found.into_iter().filter_map(|path| Some(std::str::from_utf8(path).ok()?.to_owned())).collect()
}

/// The words of a process whose scripts, as it sees them, are sourced first.
pub fn sourced(scripts: &[Vec<u8>], words: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    if scripts.is_empty() {
        return words;
    }
    let fixed = [SHELL, "-c", SCRIPT, "profile"].map(|word| word.as_bytes().to_vec());
    let scripts = scripts.iter().cloned();
    fixed.into_iter().chain(scripts).chain([b"--".to_vec()]).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_in_the_order_of_their_names_and_the_profile_last() {
        let link = || Entry::Symlink { target: b"x".to_vec() };
        let entries: Vec<_> = [
            ".profile",
            ".profile.d/b.sh",
            ".profile.d/a.sh",
            ".profile.d/c.txt",
            ".profile.d/in/d.sh",
            "x/.profile.d/e.sh",
            ".profile.d/.hidden.sh",
        ]
        .map(|path| (path.as_bytes().to_vec(), link()))
        .into_iter()
        .chain([(b".profile.d/folder.sh".to_vec(), Entry::Directory)])
        .collect();
        assert_eq!(scripts(&entries), [".profile.d/a.sh", ".profile.d/b.sh", ".profile"]);
        assert!(scripts(&[(b".profile".to_vec(), Entry::Directory)]).is_empty());
    }

    #[test]
    fn words_stay_as_they_are() {
        let words = vec![b"serve".to_vec(), b"--".to_vec()];
        assert_eq!(sourced(&[], words.clone()), words);
        let all = sourced(&[b"/app/.profile".to_vec()], words);
        assert_eq!(
            all[4..],
            [b"/app/.profile".to_vec(), b"--".to_vec(), b"serve".to_vec(), b"--".to_vec()]
        );
    }
}
