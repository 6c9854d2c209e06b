//! Ruby interpreters of the machine: those of its packages, and those that rbenv, asdf, mise, chruby and
//! ruby-build keep. They know their own path, so that they are used where they are.
//!
//! No registry within reach has a Ruby that runs anywhere: what is not installed is not fetched, and the
//! error says how to install it.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::Toolchains;
use super::fetch::unavailable;
use crate::Error;
use crate::plan::Toolchain;

/// What an interpreter is asked; its answer is one line a field, of Bundler's an empty one where it has
/// none.
const QUESTION: &str = "require 'rbconfig'
config = RbConfig::CONFIG
bundler = begin
  require 'bundler/version'
  File.file?(File.join(config['bindir'], 'bundle')) ? Bundler::VERSION : ''
rescue LoadError
  ''
end
puts RUBY_ENGINE, RUBY_VERSION, config['ruby_version'], config['prefix'], bundler
puts File.realpath(RbConfig.ruby)
puts File.file?(File.join(config['rubyhdrdir'].to_s, 'ruby.h'))";

/// Folders of the user's home whose subfolders are a Ruby each.
const HOMES: [&str; 4] =
    [".rbenv/versions", ".asdf/installs/ruby", ".local/share/mise/installs/ruby", ".rubies"];
/// Likewise, of the machine.
const FOLDERS: [&str; 2] = ["/opt/rubies", "/usr/local/rbenv/versions"];

/// A version of Ruby: `3.1.2`.
#[derive(Clone, Debug)]
pub(crate) struct RubyVersion(Vec<u64>);

impl RubyVersion {
    /// Reads `3.1.2`, `ruby-3.1.2`, `3.1.2p20`, `3.1`; nothing where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("ruby-").or(text.strip_prefix("ruby ")).unwrap_or(text);
        // The patch level of one version says nothing about what it can do.
        let text = text.split(['p', '-']).next()?;
        let parts: Option<Vec<u64>> = text.split('.').map(|part| part.parse().ok()).collect();
        parts.filter(|parts| parts.len() <= 4).map(Self)
    }

    fn part(&self, place: usize) -> u64 {
        self.0.get(place).copied().unwrap_or(0)
    }

    /// Whether its first numbers are the same: `3.1.2` and `3.1`.
    fn begins_with(&self, other: &Self) -> bool {
        (0..other.0.len()).all(|place| self.part(place) == other.part(place))
    }

    fn is_same_line(&self, other: &Self) -> bool {
        (self.part(0), self.part(1)) == (other.part(0), other.part(1))
    }
}

impl std::fmt::Display for RubyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

impl PartialEq for RubyVersion {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RubyVersion {}

impl PartialOrd for RubyVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RubyVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let places = 0..self.0.len().max(other.0.len());
        places
            .map(|place| self.part(place).cmp(&other.part(place)))
            .fold(Ordering::Equal, Ordering::then)
    }
}

/// One comparison of a requirement: `~> 3.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    sign: &'static str,
    version: RubyVersion,
}

impl Bound {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        // The longer ones first.
        let signs = ["~>", ">=", "<=", "!=", "=", ">", "<"];
        let sign = signs.into_iter().find(|sign| text.starts_with(sign));
        let rest = sign.map_or(text, |sign| &text[sign.len()..]);
        Some(Self { sign: sign.unwrap_or("="), version: RubyVersion::parse(rest)? })
    }

    fn holds(&self, version: &RubyVersion) -> bool {
        let order = version.cmp(&self.version);
        match self.sign {
            ">=" => order.is_ge(),
            "<=" => order.is_le(),
            "!=" => order.is_ne(),
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            "~>" => {
                let kept = self.version.0.len().saturating_sub(1).max(1);
                let line = RubyVersion(self.version.0[..kept].to_vec());
                order.is_ge() && version.begins_with(&line)
            }
            // `3.1` stands for the newest of that line.
            _ => version.begins_with(&self.version),
        }
    }
}

/// A wish for versions, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// As written: `~> 3.1`.
    pub text: String,
    /// `Gemfile`.
    pub from: &'static str,
    bounds: Vec<Bound>,
    /// Whether Bundler refuses every other one when the app starts.
    is_strict: bool,
}

impl Want {
    /// What a Gemfile asks for: Bundler compares at every start.
    pub(crate) fn requirement(texts: &[&str], from: &'static str) -> Option<Self> {
        let bounds: Option<Vec<Bound>> = texts.iter().map(|text| Bound::parse(text)).collect();
        Some(Self { text: texts.join(", "), from, bounds: bounds?, is_strict: true })
    }

    /// What `.ruby-version` and `.tool-versions` name, for whoever installs a Ruby.
    pub(crate) fn version(text: &str, from: &'static str) -> Option<Self> {
        let version = RubyVersion::parse(text)?;
        let bounds = vec![Bound { sign: "=", version }];
        Some(Self { text: text.trim().to_owned(), from, bounds, is_strict: false })
    }

    fn holds(&self, version: &RubyVersion) -> bool {
        self.bounds.iter().all(|bound| bound.holds(version))
    }

    /// Whether it is of the line that is named, where nobody compares more closely.
    fn nearly_holds(&self, version: &RubyVersion) -> bool {
        !self.is_strict && self.bounds.iter().all(|bound| bound.version.is_same_line(version))
    }
}

/// An interpreter, ready to be run in a build and by the slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruby {
    /// Its version.
    pub version: RubyVersion,
    /// The folder that its gems are kept in by: `3.1.0`.
    pub abi: String,
    /// Its Bundler.
    pub bundler: String,
    /// The folder of its programs.
    pub bin: PathBuf,
    /// Whether C sources can be compiled for it.
    pub has_headers: bool,
    /// Whether it is only of the line that is wanted.
    pub is_near: bool,
    /// What has to be mounted.
    pub mount: Option<Toolchain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    version: RubyVersion,
    abi: String,
    prefix: PathBuf,
    bundler: String,
    program: PathBuf,
    has_headers: bool,
}

impl Toolchains<'_> {
    /// The newest Ruby with Bundler that is what `want` asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn ruby(&mut self, want: Option<&Want>) -> Result<Ruby, Error> {
        let found = self.rubies();
        let with_bundler = found.iter().filter(|one| !one.bundler.is_empty());
        let holds = |one: &&Found| want.is_none_or(|want| want.holds(&one.version));
        let nearly = |one: &&Found| want.is_some_and(|want| want.nearly_holds(&one.version));
        let newest = |one: &&Found| one.version.clone();
        let exact = with_bundler.clone().filter(holds).max_by_key(newest);
        let near = with_bundler.filter(nearly).max_by_key(newest);
        if let Some(best) = exact.or(near) {
            let ruby = placed(best.clone(), exact.is_none());
            if self.stack.is_some() && ruby.mount.is_none() {
                let why =
                    format!("{} is this machine's, which a stack hides", best.program.display());
                let help = "install it outside of /usr: `ruby-build 3.4.1 /opt/rubies/3.4.1`, or \
                            with rbenv; or build without TOLV_STACK";
                return Err(unavailable(&format!("Ruby {}", ruby.version), why, help));
            }
            return Ok(ruby);
        }
        let what = match want {
            Some(want) => format!("Ruby {} ({})", want.text, want.from),
            None => "Ruby".to_owned(),
        };
        let shown = |one: &Found| {
            let lacks = if one.bundler.is_empty() { ", without Bundler" } else { "" };
            format!("{} ({}{lacks})", one.version, one.program.display())
        };
        let had = match found.iter().map(shown).collect::<Vec<_>>().join(", ") {
            had if had.is_empty() => "this machine has none".to_owned(),
            had => format!("this machine has {had}"),
        };
        let fits = found.iter().any(|one| holds(&one) || nearly(&one));
        let help = match (fits, want) {
            (true, _) => "install its Bundler: `apt install bundler`, or `gem install bundler`",
            (false, None) => {
                "install it with Bundler and its headers: `apt install ruby bundler ruby-dev`"
            }
            (false, Some(_)) => {
                "install that version where Tolv looks: in /opt/rubies (`ruby-build 3.4.1 \
                 /opt/rubies/3.4.1`) or with rbenv; or ask for one that is here"
            }
        };
        Err(unavailable(&what, had, help))
    }

    fn rubies(&mut self) -> Vec<Found> {
        let mut programs = self.installed("ruby");
        let homes = self.user_home.iter().flat_map(|home| HOMES.map(|folder| home.join(folder)));
        for folder in homes.chain(FOLDERS.map(PathBuf::from)) {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut below: Vec<_> =
                entries.flatten().map(|entry| entry.path().join("bin/ruby")).collect();
            below.sort();
            programs.extend(below);
        }
        let mut found: Vec<Found> = Vec::new();
        for program in programs.into_iter().filter(|program| program.is_file()) {
            // Another tool of this name, or a broken one, is none.
            let said = self.output(&program, &["--disable=did_you_mean", "-e", QUESTION]);
            let one = said.ok().and_then(|said| understood(&said));
            found.extend(one.filter(|one| !found.contains(one)));
        }
        found
    }
}

/// An answer to [`QUESTION`]; nothing for another implementation.
fn understood(said: &str) -> Option<Found> {
    let mut lines = said.lines();
    if lines.next()? != "ruby" {
        return None;
    }
    let version = RubyVersion::parse(lines.next()?)?;
    let abi = lines.next()?.to_owned();
    let prefix = PathBuf::from(lines.next()?);
    let bundler = lines.next()?.to_owned();
    let program = PathBuf::from(lines.next()?);
    let has_headers = lines.next()? == "true";
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".+-".contains(c));
    let is_right = prefix.is_absolute() && program.is_absolute() && plain(&abi) && plain(&bundler);
    is_right.then_some(Found { version, abi, prefix, bundler, program, has_headers })
}

/// Whether a path belongs to the system folders, which every sandbox sees.
fn in_stack(path: &Path) -> bool {
    ["/usr", "/bin", "/sbin", "/lib", "/lib64"].iter().any(|folder| path.starts_with(folder))
}

fn placed(found: Found, is_near: bool) -> Ruby {
    let Found { version, abi, prefix, bundler, program, has_headers } = found;
    let is_of_stack = in_stack(&program) && in_stack(&prefix);
    // A Ruby knows its own path: it is seen where it is.
    let mount = (!is_of_stack).then(|| Toolchain {
        version: format!("ruby {version}"),
        source: prefix.clone(),
        target: prefix.clone(),
        at_run: true,
    });
    let bin = match is_of_stack {
        true => program.parent().unwrap_or(Path::new("/usr/bin")).to_owned(),
        false => prefix.join("bin"),
    };
    Ruby { version, abi, bundler, bin, has_headers, is_near, mount }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> RubyVersion {
        RubyVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_read_and_compared() {
        for (text, shown) in [
            ("3.1.2", "3.1.2"),
            ("ruby-3.4.1\n", "3.4.1"),
            ("ruby 2.7.8p225", "2.7.8"),
            ("3.1", "3.1"),
        ] {
            assert_eq!(version(text).to_string(), shown);
        }
        for none in ["", "jruby-9.4", "truffleruby", "3.x", "3.4.0.1.2", "-"] {
            assert_eq!(RubyVersion::parse(none), None, "{none}");
        }
        assert!(version("3.10.0") > version("3.9.9") && version("3.1") < version("3.1.1"));
        assert_eq!(version("3.1"), version("3.1.0"));
    }

    #[test]
    fn a_gemfile_asks_as_bundler_understands_it() {
        let holds = |texts: &[&str], text: &str| {
            Want::requirement(texts, "Gemfile").unwrap().holds(&version(text))
        };
        assert!(holds(&["3.1.2"], "3.1.2") && !holds(&["3.1.2"], "3.1.3"));
        assert!(holds(&["~> 3.1"], "3.4.1") && !holds(&["~> 3.1"], "4.0.0"));
        assert!(holds(&["~> 3.1.0"], "3.1.7") && !holds(&["~> 3.1.0"], "3.2.0"));
        assert!(!holds(&["~> 3.1.3"], "3.1.2"));
        assert!(holds(&[">= 2.7", "< 3.3"], "3.1.2") && !holds(&[">= 2.7", "< 3.1"], "3.1.2"));
        assert!(!holds(&["!= 3.1.2"], "3.1.2") && holds(&["> 3.1"], "3.1.2"));
        assert!(Want::requirement(&["whatever"], "Gemfile").is_none());
    }

    #[test]
    fn what_nobody_compares_at_the_start_may_be_of_the_same_line() {
        let want = Want::version("3.1.4", ".ruby-version").unwrap();
        assert!(!want.holds(&version("3.1.2")) && want.nearly_holds(&version("3.1.2")));
        assert!(!want.nearly_holds(&version("3.2.0")));
        let strict = Want::requirement(&["3.1.4"], "Gemfile").unwrap();
        assert!(!strict.nearly_holds(&version("3.1.2")));
    }
}
