//! A project: a directory with `wharf.toml`, which says how its service is built.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::component;
use crate::exit::Exit;

/// The file that makes a directory a project.
pub(super) const FILE: &str = "wharf.toml";

/// The largest file of a project that is read, in bytes.
const MAX_FILE: usize = 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    name: String,
    build: String,
    component: PathBuf,
    #[serde(default)]
    watch: Vec<PathBuf>,
}

/// What `wharf.toml` says.
pub(super) struct Project {
    pub(super) root: PathBuf,
    /// Of the service, and of the files of its plugin.
    pub(super) name: String,
    /// For the shell, in the project's directory.
    pub(super) build: String,
    /// What the build makes.
    pub(super) component: PathBuf,
    /// What the component is made of: files and directories.
    pub(super) watch: Vec<PathBuf>,
}

impl Project {
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        let path = root.join(FILE);
        if !path.exists() {
            let message = format!(
                "{} has no {FILE}: name the directory of a project, or make one with 'wharf new NAME'",
                root.display()
            );
            return Err(Exit::NotFound(message).into());
        }
        let Document { name, build, component, watch } = read(&path)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            anyhow::bail!("{}, name: use letters, digits, '-' and '_'", path.display());
        }
        // What the build runs in, and what is watched, must not depend on the current directory.
        let root = root.canonicalize().with_context(|| format!("{}", root.display()))?;
        let component = root.join(component);
        let watch = watch.into_iter().map(|path| root.join(path)).collect();
        Ok(Project { root, name, build, component, watch })
    }

    /// The component as a host takes it.
    pub(super) fn plugin(&self) -> PathBuf {
        self.root.join(format!("{}.wasm", self.name))
    }

    pub(super) fn sidecar(&self) -> PathBuf {
        self.root.join(format!("{}.toml", self.name))
    }

    pub(super) fn calls(&self) -> PathBuf {
        self.root.join("calls.toml")
    }

    /// Where its interfaces are.
    pub(super) fn wit(&self) -> PathBuf {
        self.root.join("wit")
    }

    /// Makes the plugin and its sidecar all that is in a plugins folder. The sidecar comes first, so that the
    /// host never sees the component without it, and both within a moment, which is one change to it.
    pub(super) fn install(&self, folder: &Path) -> anyhow::Result<()> {
        let (plugin, sidecar) = (self.plugin(), self.sidecar());
        let into = |path: &Path| folder.join(path.file_name().unwrap_or_default());
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let stays = path == into(&plugin) || path == into(&sidecar) && sidecar.exists();
            if !stays {
                std::fs::remove_file(path)?;
            }
        }
        let component = stage(&into(&plugin), &component::bytes(&plugin)?)?;
        if sidecar.exists() {
            let content = component::bytes(&sidecar)?;
            if std::fs::read(into(&sidecar)).ok().as_ref() != Some(&content) {
                write(&into(&sidecar), &content)?;
            }
        }
        std::fs::rename(component, into(&plugin))?;
        Ok(())
    }
}

/// Reads a TOML file of a project. The error says what is wrong, and where.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text =
        text(path, MAX_FILE).with_context(|| format!("{} cannot be read", path.display()))?;
    let text =
        text.with_context(|| format!("{} has more than {MAX_FILE} bytes", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        let before = error.span().map(|span| &text[..text.floor_char_boundary(span.start)]);
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        anyhow::anyhow!("{}, line {line}: {}", path.display(), error.message())
    })
}

/// The text of a file, or `None` if it has more bytes than these.
pub(super) fn text(path: &Path, max: usize) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Ok(None);
    }
    String::from_utf8(bytes).map(Some).map_err(std::io::Error::other)
}

/// Writes a file so that nobody sees half of it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let staged = stage(path, bytes)?;
    std::fs::rename(staged, path).with_context(|| format!("{} cannot be written", path.display()))
}

/// Writes what is to become a file beside it.
fn stage(path: &Path, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&new, bytes).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Project, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        Project::open(folder.path()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_project_says_what_it_is_and_mistakes_name_their_line() {
        let good =
            "name = \"hello\"\nbuild = \"true\"\ncomponent = \"a.wasm\"\nwatch = [\"src\"]\n";
        let project = open(good).unwrap();
        assert!(project.plugin().ends_with("hello.wasm"));
        assert!(project.watch[0].ends_with("src") && project.watch[0].is_absolute());
        for (text, words) in [
            ("name = \"hello\"\nbild = \"x\"\n", "wharf.toml, line 2: unknown field `bild`"),
            ("name = \"hello\"\n", "missing field `build`"),
            (&good.replace("hello", "a/b"), "name: use letters, digits"),
            (&"#".repeat(MAX_FILE + 1), "has more than 1048576 bytes"),
        ] {
            let error = open(text).err().unwrap();
            assert!(error.contains(words), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let error = Project::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("has no wharf.toml") && error.contains("wharf new"), "{error}");
    }
}
