//! Reads the machine's own apt sources, in both of apt's formats: the one-line `*.list` and the deb822 `*.sources`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One source of binary packages: what one URI serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The archive's address, in any form that apt takes.
    pub uri: String,
    /// Releases (`bookworm`, `bookworm-updates`).
    pub suites: Vec<String>,
    /// Parts of a release (`main`).
    pub components: Vec<String>,
    /// What the entry trusts: key files or fingerprints, or a whole armored key.
    pub signed_by: Option<String>,
    /// The entry says that its archive needs no valid signature.
    pub trusted: bool,
}

impl Source {
    /// Whether the entry serves the release of that codename itself, not only its updates.
    pub fn serves(&self, codename: &str) -> bool {
        self.suites.iter().any(|suite| suite == codename) && self.components.iter().any(|part| part == "main")
    }
}

/// Every binary source of this machine, in apt's own order.
pub fn of_this_machine() -> Result<Vec<Source>> {
    of_folder(Path::new("/etc/apt"))
}

fn of_folder(apt: &Path) -> Result<Vec<Source>> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(apt.join("sources.list.d")) {
        let mut parts = parts.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        parts.sort();
        files.extend(parts);
    }
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let read = || fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(parse_list(&read()?)),
            Some("sources") => sources.extend(parse_deb822(&read()?)),
            _ => {}
        }
    }
    Ok(sources)
}

/// Parses the one-line format: `deb [signed-by=/key arch=amd64] uri suite component…`. Other lines are no binary sources.
pub fn parse_list(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| parse_list_line(line.split('#').next().unwrap_or_default().trim()))
        .collect()
}

fn parse_list_line(line: &str) -> Option<Source> {
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut source = Source::default();
    let rest = match rest.strip_prefix('[') {
        Some(options) => {
            let (options, rest) = options.split_once(']')?;
            for (name, value) in options
                .split_whitespace()
                .filter_map(|option| option.split_once('='))
            {
                match name.to_ascii_lowercase().as_str() {
                    "signed-by" => source.signed_by = Some(value.to_owned()),
                    "trusted" => source.trusted = value == "yes",
                    _ => {}
                }
            }
            rest
        }
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uri = words.next()?;
    source.suites = vec![words.next()?];
    source.components = words.collect();
    Some(source)
}

/// Parses the deb822 format: stanzas of `Field: value`, split by blank lines; an indented line continues the field.
/// A stanza with several URIs gives one source each.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                // In a folded field, a lone dot stands for an empty line.
                let line = line.trim();
                value.push('\n');
                value.push_str(if line == "." { "" } else { line });
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let no = |value: &str| ["no", "false", "off", "0", "without", "disable"].contains(&value);
    if !words("types").iter().any(|kind| kind == "deb") || field("enabled").is_some_and(no) {
        return Vec::new();
    }
    let signed_by = field("signed-by")
        .map(str::trim)
        .filter(|value| !value.is_empty());
    words("uris")
        .into_iter()
        .map(|uri| Source {
            uri,
            suites: words("suites"),
            components: words("components"),
            signed_by: signed_by.map(str::to_owned),
            trusted: field("trusted") == Some("yes"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_one_line_entry_gives_uri_suite_components_and_options() {
        let text = "# deb http://commented.invalid/x a main\n\
                    deb-src http://sources.invalid/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.invalid/debian bookworm main contrib # here\n\
                    \n\
                    deb\thttp://other.invalid/debian bookworm-updates main\n";
        let sources = parse_list(text);
        assert_eq!(
            sources[0],
            Source {
                uri: "http://mirror.invalid/debian".into(),
                suites: words("bookworm"),
                components: words("main contrib"),
                signed_by: Some("/usr/share/keyrings/a.gpg".into()),
                trusted: false,
            }
        );
        assert!(sources[0].serves("bookworm"));
        assert_eq!(sources[1].suites, words("bookworm-updates"));
        assert!(!sources[1].serves("bookworm"));
        assert_eq!(sources.len(), 2);
    }

    #[test]
    fn broken_one_line_entries_are_passed_over() {
        for line in [
            "deb",
            "deb ",
            "deb [signed-by=/x",
            "deb [a=b]",
            "deb http://only.invalid",
            "debian x y z",
        ] {
            assert_eq!(parse_list(line), [], "{line}");
        }
    }

    #[test]
    fn a_stanza_gives_one_source_a_uri() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://one.invalid/debian\n http://two.invalid/debian\n\
                    # inside\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n\n\n\
                    Types: deb-src\nURIs: http://three.invalid/debian\nSuites: trixie\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://four.invalid/debian\nSuites: trixie\nComponents: main";
        let sources = parse_deb822(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].uri, "http://one.invalid/debian");
        assert_eq!(sources[1].uri, "http://two.invalid/debian");
        assert_eq!(sources[1].suites, words("trixie trixie-updates"));
        assert_eq!(sources[1].signed_by.as_deref(), Some("/usr/share/keyrings/a.gpg"));
        assert!(sources[1].serves("trixie"));
    }

    #[test]
    fn a_key_inside_a_stanza_keeps_its_lines() {
        let text = "Types: deb\nURIs: http://one.invalid/debian\nSuites: trixie\nComponents: main\nSigned-By:\n \
                    -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let key = parse_deb822(text)[0].signed_by.clone().unwrap();
        assert_eq!(
            key,
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n-----END PGP PUBLIC KEY BLOCK-----"
        );
    }

    #[test]
    fn both_formats_are_found_in_a_folder_in_apts_order_and_other_files_are_not_read() {
        let apt = tempfile::tempdir().unwrap();
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).unwrap();
        fs::write(apt.path().join("sources.list"), "deb http://a.invalid/ x main").unwrap();
        fs::write(parts.join("c.list"), "deb http://c.invalid/ x main").unwrap();
        fs::write(
            parts.join("b.sources"),
            "Types: deb\nURIs: http://b.invalid/\nSuites: x\nComponents: main",
        )
        .unwrap();
        fs::write(parts.join("d.list.disabled"), "deb http://d.invalid/ x main").unwrap();
        let uris: Vec<_> = of_folder(apt.path())
            .unwrap()
            .into_iter()
            .map(|source| source.uri)
            .collect();
        assert_eq!(
            uris,
            ["http://a.invalid/", "http://b.invalid/", "http://c.invalid/"]
        );
    }
}
