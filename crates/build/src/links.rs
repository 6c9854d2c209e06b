//! Where a symbolic link of a tree leads, worked out on paper: the file system is not asked.

/// Where a link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// To this path of the tree, which may or may not exist.
    Inside(Vec<u8>),
    /// Out of the tree.
    Outside,
}

/// Follows the link at `link` with its `target`. `link_at` gives the target of another link of
/// the tree, so that a way through several links is followed as the kernel would.
pub(crate) fn follow<'a>(
    link: &[u8],
    target: &'a [u8],
    link_at: &dyn Fn(&[u8]) -> Option<&'a [u8]>,
) -> Leads {
    if target.starts_with(b"/") {
        return Leads::Outside;
    }
    let mut here: Vec<&[u8]> = link.split(|&b| b == b'/').collect();
    here.pop();
    let mut left: Vec<&[u8]> = target.rsplit(|&b| b == b'/').collect();
    // The kernel gives up after 40 links; so does this, and such a link leads nowhere inside.
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part {
            b"" | b"." => {}
            b".." => {
                if here.pop().is_none() {
                    return Leads::Outside;
                }
            }
            name => {
                here.push(name);
                if let Some(next) = link_at(&here.join(&b'/')) {
                    links += 1;
                    if next.starts_with(b"/") {
                        return Leads::Outside;
                    }
                    here.pop();
                    if links <= 40 {
                        left.extend(next.rsplit(|&b| b == b'/'));
                    }
                }
            }
        }
    }
    Leads::Inside(here.join(&b'/'))
}

/// The relative target of a link at `link` to the tree's own path `to`.
pub(crate) fn relative(link: &[u8], to: &[u8]) -> Vec<u8> {
    let up = link.iter().filter(|&&byte| byte == b'/').count();
    let target = [b"../".repeat(up), to.to_vec()].concat();
    if target.is_empty() { b".".to_vec() } else { target }
}

#[cfg(test)]
mod tests {
    use super::{Leads, follow, relative};

    fn leads(link: &str, target: &'static str) -> Leads {
        follow(link.as_bytes(), target.as_bytes(), &|path| match path {
            b"deep" => Some(b"a/b/c"),
            b"a/out" => Some(b"/etc"),
            b"loop" => Some(b"loop"),
            _ => None,
        })
    }

    #[test]
    fn follows_like_the_kernel() {
        let inside = |path: &str| Leads::Inside(path.as_bytes().to_vec());
        assert_eq!(leads("x", "y/z"), inside("y/z"));
        assert_eq!(leads("a/x", "../y"), inside("y"));
        assert_eq!(leads("a/x", "./b//c/../d"), inside("a/b/d"));
        assert_eq!(leads("a/x", ".."), inside(""));
        assert_eq!(leads("x", "deep/.."), inside("a/b"));
        assert_eq!(leads("x", "../y"), Leads::Outside);
        assert_eq!(leads("a/x", "../../y"), Leads::Outside);
        assert_eq!(leads("x", "/etc/passwd"), Leads::Outside);
        assert_eq!(leads("x", "a/out"), Leads::Outside);
        assert_eq!(leads("loop", "loop"), inside(""));
    }

    #[test]
    fn relative_targets() {
        assert_eq!(relative(b"a", b"b/c"), b"b/c");
        assert_eq!(relative(b"x/y/z", b"b"), b"../../b");
        assert_eq!(relative(b"x", b""), b".");
    }
}
