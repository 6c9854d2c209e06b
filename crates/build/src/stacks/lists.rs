//! What the stacks of a machine are made of: packages by name, and which of their files enter.
//!
//! Distributions and releases name one library differently (`libicu72`, `libicu74t64`), so an entry
//! is a pattern: `|` separates alternatives, of which the first that is installed is taken, `#`
//! stands for digits and dots, and Debian's ending `t64` may follow. docs/stack.md shows the lists.

use tolv_model::stack::StackName;

/// The packages of one named stack.
pub(crate) struct List {
    /// Without one of these there is no stack.
    pub(crate) required: &'static [&'static str],
    /// What a process may expect.
    pub(crate) run: &'static [&'static [&'static str]],
    /// What a build sees in addition.
    pub(crate) build: &'static [&'static [&'static str]],
    /// Of these, what is not installed is named in a warning.
    pub(crate) expected: &'static [&'static str],
}

/// The list of this name.
pub(crate) fn list(name: &StackName) -> Option<List> {
    match name.as_str() {
        "host" => Some(List {
            required: REQUIRED,
            run: &[RUN, LIBRARIES],
            build: &[BUILD, HEADERS],
            expected: &[],
        }),
        "heroku-22" | "heroku-24" => Some(List {
            required: REQUIRED,
            run: &[RUN, LIBRARIES, HEROKU, HEROKU_LIBRARIES],
            build: &[BUILD, HEADERS, HEROKU_HEADERS],
            expected: HEROKU,
        }),
        _ => None,
    }
}

const REQUIRED: &[&str] = &[
    "base-files",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "gawk|mawk|original-awk",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "libc6",
    "libgcc-s1|libgcc1",
    "libstdc++6",
    "ncurses-base",
    "netbase",
    "sed",
    "tar",
    "tzdata",
];

const RUN: &[&str] = &[
    "bsdutils",
    "bzip2",
    "media-types|mime-support",
    "ncurses-bin",
    "openssl",
    "procps",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// Client libraries that packages of every language link to.
const LIBRARIES: &[&str] = &[
    "libatomic1",
    "libbrotli1",
    "libbz2-1.0",
    "libc-ares2",
    "libcurl3-gnutls",
    "libcurl4",
    "libdb5.3",
    "libev4",
    "libevent-2.1-7",
    "libexpat1",
    "libffi#",
    "libgdbm-compat4",
    "libgdbm6",
    "libgmp10",
    "libgomp1",
    "libhiredis#",
    "libicu#",
    "libjemalloc2",
    "libldap-2.5-0|libldap2|libldap-2.4-2",
    "liblz4-1",
    "liblzma5",
    "libmagic1",
    "libmariadb3",
    "libmemcached11",
    "libmysqlclient#",
    "libncurses6",
    "libncursesw6",
    "libnsl2",
    "libpcre2-8-0",
    "libpq5",
    "libquadmath0",
    "librdkafka1",
    "libreadline#",
    "libsodium#",
    "libsqlite3-0",
    "libssl3|libssl1.1",
    "libtinfo6",
    "libtirpc3",
    "libuuid1",
    "libuv1",
    "libxml2",
    "libxslt1.1",
    "libyaml-0-2",
    "libzstd1",
    "zlib1g",
];

const BUILD: &[&str] = &[
    "autoconf",
    "automake",
    "binutils",
    "bison",
    "cmake",
    "curl",
    "file",
    "flex",
    "g++",
    "gcc",
    "gettext",
    "git",
    "jq",
    "libc6-dev",
    "libtool",
    "m4",
    "make",
    "openssh-client",
    "patch",
    "patchelf",
    "perl",
    "pkgconf|pkg-config",
    "python3",
    "rsync",
    "unzip",
    "wget",
    "zip",
];

const HEADERS: &[&str] = &[
    "libbz2-dev",
    "libcurl4-openssl-dev|libcurl4-gnutls-dev",
    "libdb-dev",
    "libevent-dev",
    "libexpat1-dev",
    "libffi-dev",
    "libgdbm-dev",
    "libgmp-dev",
    "libicu-dev",
    "libldap-dev|libldap2-dev",
    "liblz4-dev",
    "liblzma-dev",
    "libmagic-dev",
    "libmariadb-dev",
    "libmysqlclient-dev",
    "libncurses-dev",
    "libpq-dev",
    "librdkafka-dev",
    "libreadline-dev",
    "libsodium-dev",
    "libsqlite3-dev",
    "libssl-dev",
    "libuv1-dev",
    "libxml2-dev",
    "libxslt1-dev",
    "libyaml-dev",
    "libzstd-dev",
    "uuid-dev",
    "zlib1g-dev",
];

/// Programs that apps of Heroku find there.
const HEROKU: &[&str] = &[
    "bind9-dnsutils|dnsutils",
    "curl",
    "default-mysql-client|mysql-client|mariadb-client",
    "ed",
    "file",
    "fontconfig",
    "geoip-database",
    "gettext-base",
    "ghostscript",
    "git",
    "gnupg",
    "gsfonts|fonts-urw-base35",
    "imagemagick",
    "iproute2",
    "iputils-tracepath",
    "jq",
    "less",
    "lsb-release",
    "nano",
    "netcat-openbsd",
    "openssh-client",
    "patch",
    "perl",
    "poppler-utils",
    "postgresql-client|postgresql-client-#",
    "python3",
    "redis-tools|redis",
    "rename",
    "rsync",
    "shared-mime-info",
    "socat",
    "sqlite3",
    "stunnel4|stunnel",
    "telnet|inetutils-telnet",
    "unzip",
    "wget",
    "zip",
];

const HEROKU_LIBRARIES: &[&str] = &[
    "libaom#",
    "libargon2-1",
    "libass9",
    "libc-client2007e",
    "libcairo2",
    "libdatrie1",
    "libdav1d#",
    "libevent-core-2.1-7",
    "libevent-extra-2.1-7",
    "libevent-openssl-2.1-7",
    "libevent-pthreads-2.1-7",
    "libexif12",
    "libfreetype6",
    "libfribidi0",
    "libgd3",
    "libgdk-pixbuf-2.0-0|libgdk-pixbuf2.0-0",
    "libgnutls-openssl27",
    "libgnutls30",
    "libgraphite2-3",
    "libgs#",
    "libharfbuzz-icu0",
    "libharfbuzz0b",
    "libheif1",
    "liblzf1",
    "libmagickcore-6.q16-#-extra",
    "libmcrypt4",
    "libmp3lame0",
    "libnuma1",
    "libogg0",
    "libonig5",
    "libopencore-amrnb0",
    "libopencore-amrwb0",
    "libopus0",
    "libpango-1.0-0",
    "libpangocairo-1.0-0",
    "libpangoft2-1.0-0",
    "libpixman-1-0",
    "librabbitmq4",
    "librsvg2-2",
    "librsvg2-common",
    "libsasl2-modules",
    "libseccomp2",
    "libspeex1",
    "libsvtav1enc#",
    "libthai-data",
    "libthai0",
    "libtheora0",
    "libunistring#",
    "libvips42",
    "libvorbis0a",
    "libvorbisenc2",
    "libvorbisfile3",
    "libvpx#",
    "libwebp#",
    "libwebpdemux2",
    "libwebpmux3",
    "libx264-#",
    "libx265-#",
    "libxcb-render0",
    "libxcb-shm0",
    "libxrender1",
    "libzip#",
];

const HEROKU_HEADERS: &[&str] = &[
    "libargon2-dev",
    "libbsd-dev",
    "libc-client2007e-dev",
    "libcairo2-dev",
    "libev-dev",
    "libexif-dev",
    "libgcrypt20-dev",
    "libgd-dev",
    "libgeoip-dev",
    "libgnutls28-dev",
    "libheif-dev",
    "libidn-dev|libidn11-dev",
    "libjpeg-dev",
    "libkrb5-dev",
    "liblzf-dev",
    "libmagickwand-dev",
    "libmcrypt-dev",
    "libmemcached-dev",
    "libonig-dev",
    "libpng-dev",
    "librabbitmq-dev",
    "librtmp-dev",
    "libvips-dev",
    "libwrap0-dev",
    "libzip-dev",
];

/// What a machine needs to be administered, and no app: a dependency on one is not followed.
pub(crate) const NOT_FOLLOWED: &[&str] = &[
    "adduser",
    "apt",
    "cdebconf",
    "dbus",
    "debconf",
    "debconf-2.0",
    "default-dbus-session-bus",
    "default-logind",
    "dpkg",
    "e2fsprogs",
    "init-system-helpers",
    "install-info",
    "libpam-modules",
    "libpam-runtime",
    "libpam-systemd",
    "login",
    "logsave",
    "lsb-base",
    "man-db",
    "mount",
    "passwd",
    "policykit-1",
    "polkitd",
    "sensible-utils",
    "systemd",
    "systemd-sysv",
    "sysvinit-utils",
    "ucf",
    "udev",
    "util-linux-extra",
];

/// The names of `installed` that an entry stands for: those of its first alternative that has any.
pub(crate) fn matches<'a>(
    entry: &str,
    installed: impl Iterator<Item = &'a str> + Clone,
) -> Vec<&'a str> {
    for pattern in entry.split('|') {
        let found: Vec<_> = installed.clone().filter(|name| is_named(pattern, name)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn is_named(pattern: &str, name: &str) -> bool {
    let is = |name: &str| match pattern.split_once('#') {
        None => name == pattern,
        Some((start, end)) => {
            let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            middle.is_some_and(|text| {
                text.starts_with(|c: char| c.is_ascii_digit())
                    && text.chars().all(|c| c.is_ascii_digit() || c == '.')
            })
        }
    };
    is(name) || name.strip_suffix("t64").is_some_and(is)
}

/// Whether a package's file at this path of a merged system (`usr/bin/sh`) enters a stack.
pub(crate) fn enters(path: &[u8]) -> bool {
    let starts = |list: &[&str]| list.iter().any(|start| path.starts_with(start.as_bytes()));
    if path.starts_with(b"usr/") {
        // Shows the compiler's own files, and is as large as the compiler.
        let is_dump = path.windows(9).any(|part| part == b"-lto-dump");
        return !starts(LEFT_OUT) && !is_dump && path != b"usr/bin/lto-dump";
    }
    let Some(rest) = path.strip_prefix(b"etc/") else { return false };
    let name = rest.split(|&byte| byte == b'/').next().unwrap_or_default();
    let whole = || ETC.iter().any(|one| one.as_bytes() == name);
    let begins = || ETC_PREFIXES.iter().any(|start| name.starts_with(start.as_bytes()));
    (whole() || begins()) && !path.starts_with(b"etc/ssl/private")
}

/// Manuals, translations, and what only a running system uses.
const LEFT_OUT: &[&str] = &[
    "usr/games",
    "usr/lib/debug/",
    "usr/lib/firmware/",
    "usr/lib/init/",
    "usr/lib/lsb/",
    "usr/lib/modules/",
    "usr/lib/modules-load.d/",
    "usr/lib/sysctl.d/",
    "usr/lib/systemd/",
    "usr/lib/sysusers.d/",
    "usr/lib/tmpfiles.d/",
    "usr/lib/udev/",
    "usr/local",
    "usr/share/aclocal-doc",
    "usr/share/applications/",
    "usr/share/apport/",
    "usr/share/bash-completion/",
    "usr/share/bug/",
    "usr/share/dbus-1/",
    "usr/share/doc/",
    "usr/share/doc-base/",
    "usr/share/fish/",
    "usr/share/gdb/",
    "usr/share/gtk-doc/",
    "usr/share/help/",
    "usr/share/i18n/",
    "usr/share/info/",
    "usr/share/initramfs-tools/",
    "usr/share/lintian/",
    "usr/share/locale/",
    "usr/share/man/",
    "usr/share/menu/",
    "usr/share/metainfo/",
    "usr/share/pixmaps/",
    "usr/share/polkit-1/",
    "usr/share/vim/",
    "usr/share/zsh/",
    "usr/share/zoneinfo/posix",
    "usr/share/zoneinfo/right",
    "usr/src",
];

/// What programs read of `/etc` without a choice of the machine in it.
const ETC: &[&str] = &[
    "bindresvport.blacklist",
    "crypto-policies",
    "debian_version",
    "ethertypes",
    "fonts",
    "gai.conf",
    "ghostscript",
    "gss",
    "host.conf",
    "inputrc",
    "ldap",
    "ld.so.conf",
    "ld.so.conf.d",
    "magic",
    "magic.mime",
    "mime.types",
    "mysql",
    "netconfig",
    "networks",
    "os-release",
    "perl",
    "pki",
    "postgresql-common",
    "protocols",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "wgetrc",
    "xattr.conf",
];
const ETC_PREFIXES: &[&str] = &["ImageMagick-", "java-", "python3", "ssh"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_the_first_alternative_that_is_there() {
        let installed = ["libicu72", "libicu-dev", "mawk", "libssl3t64", "libicu74t64", "gawk-doc"];
        let found = |entry| matches(entry, installed.into_iter());
        assert_eq!(found("libicu#"), ["libicu72", "libicu74t64"]);
        assert_eq!(found("gawk|mawk"), ["mawk"]);
        assert_eq!(found("libssl3|libssl1.1"), ["libssl3t64"]);
        assert!(found("libssl1.1").is_empty());
        assert!(found("libicu-#").is_empty());
    }

    #[test]
    fn nothing_of_the_machine_alone_enters() {
        for path in ["usr/bin/sh", "etc/ssl/openssl.cnf", "etc/java-17-openjdk/a", "etc/ssh/x"] {
            assert!(enters(path.as_bytes()), "{path}");
        }
        for path in [
            "usr/local/bin/x",
            "usr/share/doc/a",
            "etc/passwd",
            "etc/ssl/private/key",
            "etc/sslx",
            "var/lib/x",
            "home/a",
            "root/.ssh",
            "opt/x",
        ] {
            assert!(!enters(path.as_bytes()), "{path}");
        }
    }
}
