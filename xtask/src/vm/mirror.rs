//! Where Debian's packages come from: the mirror that this machine's own `apt` uses.

use std::{env, fs, path::Path};

use crate::Failed;

/// The mirror's address: `IOAT_MIRROR`, else the first source of this machine for its own release.
pub(super) fn find() -> Result<String, Failed> {
    if let Some(mirror) = env::var("IOAT_MIRROR").ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.unwrap_or_default().trim_matches('"');
    let mut files = vec!["/etc/apt/sources.list".into()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let found = files.iter().find_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        match Path::new(file).extension()?.to_str()? {
            "list" => in_list(&text, codename),
            "sources" => in_stanzas(&text, codename),
            _ => None,
        }
    });
    found.ok_or_else(|| {
        format!(
            "apt's sources name no Debian mirror for `{codename}`: \
             set IOAT_MIRROR to the address of one"
        )
    })
}

/// In the format with a source a line: `deb [options] URI suite component…`.
fn in_list(text: &str, codename: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        (suite == codename && words.any(|word| word == "main")).then(|| uri.to_owned())
    })
}

/// In the format with stanzas of fields.
fn in_stanzas(text: &str, codename: &str) -> Option<String> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().split_whitespace()
        };
        let ours = field("Suites").any(|suite| suite == codename)
            && field("Types").any(|kind| kind == "deb")
            && field("Components").any(|component| component == "main")
            && field("Enabled").all(|enabled| enabled == "yes");
        if ours { field("URIs").next().map(str::to_owned) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let text = "# deb http://comment/debian bookworm main\n\
                    deb-src http://source/debian bookworm main\n\
                    deb http://security/debian bookworm-security main\n\
                    deb http://other/tools bookworm stable\n\
                    deb [arch=amd64 signed-by=/a b] http://mirror/debian bookworm main contrib\n";
        assert_eq!(in_list(text, "bookworm").as_deref(), Some("http://mirror/debian"));
        assert_eq!(in_list(text, "trixie"), None);
    }

    #[test]
    fn stanzas() {
        let text = "Types: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n\
                    Enabled: no\n\nTypes: deb\n# http://comment\nURIs: http://mirror/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\n\
                    URIs: http://security\nSuites: bookworm-security\nComponents: main\n";
        assert_eq!(in_stanzas(text, "bookworm").as_deref(), Some("http://mirror/debian"));
        assert_eq!(in_stanzas(text, "bookworm-security").as_deref(), Some("http://security"));
        assert_eq!(in_stanzas(text, "trixie"), None);
    }
}
