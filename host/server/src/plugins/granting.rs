//! Which grants a plugin really gets. What a sidecar asks for counts only if nobody else could have
//! written the sidecar, and never reaches what would give a plugin more than it was granted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_net::private::{self, PrivateError};
use wharf_runtime::Grants;

use super::file::{self, ReadError};
use super::pin::Pin;
use super::sidecar::{self, SidecarError};

/// Directories that are the system's view of processes and devices. Through them, a plugin would reach
/// the memory, the environment and the files of this process.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Where grants come from, and what they must not reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granting {
    /// The only file with grants. Then sidecars may grant nothing. `None`: sidecars grant.
    pub file: Option<PathBuf>,
    /// Others may write to the plugins folder. Then sidecars may grant nothing.
    pub shared_folder: bool,
    /// Files and directories that no granted directory may contain, or be in: tokens, keys, the cache.
    pub protected: Vec<PathBuf>,
}

/// Why a plugin does not get its grants.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantingError {
    #[error("it has grants, and somebody else could change it: {0}")]
    Unsafe(#[source] PrivateError),
    #[error("its sidecar has grants, but they come only from {}: move them there, under [\"{plugin}\"]", .file.display())]
    OnlyFromFile { file: PathBuf, plugin: String },
    #[error(
        "its sidecar has grants, but others may write to the plugins folder (--plugins-shared): name a file with all grants with --grants"
    )]
    Shared,
    #[error("the file of grants {} cannot be used: {why}", .file.display())]
    File { file: PathBuf, why: String },
    #[error("{}", .0)]
    Mistake(#[from] SidecarError),
    #[error("the granted directory {} {how} {}, which no plugin may reach: grant another directory", .granted.display(), .protected.display())]
    Protected { granted: PathBuf, how: &'static str, protected: PathBuf },
}

/// What a plugin gets, and what its file must have for that.
#[derive(Debug, PartialEq)]
pub(super) struct Granted {
    pub(super) grants: Grants,
    /// Each of them has to be met.
    pub(super) pins: Vec<Pin>,
}

/// The grants of one plugin. `asked` and `pin` are what its sidecar says. This reads files, so it may
/// block.
pub(super) fn decide(
    granting: &Granting,
    folder: &Path,
    (plugin, sidecar): (&str, &Path),
    (asked, pin): (&Grants, Option<Pin>),
    defaults: &Grants,
) -> Result<Granted, GrantingError> {
    let asks = grants_something(asked, defaults);
    // Whoever can change one of these files has what is granted.
    let unchanged = |file: &Path| match granting.shared_folder {
        true => Ok(()),
        false => private::check_edited(file).map_err(GrantingError::Unsafe),
    };
    if asks || pin.is_some() {
        unchanged(sidecar)?;
    }
    let mut pins: Vec<Pin> = pin.into_iter().collect();
    let grants = match &granting.file {
        Some(file) if asks => {
            let (file, plugin) = (file.clone(), plugin.to_owned());
            return Err(GrantingError::OnlyFromFile { file, plugin });
        }
        Some(file) => match from_file(file, plugin, defaults)? {
            Some((grants, pin)) => {
                pins.extend(pin);
                grants
            }
            None => asked.clone(),
        },
        None if asks && granting.shared_folder => return Err(GrantingError::Shared),
        None => asked.clone(),
    };
    if grants_something(&grants, defaults) {
        unchanged(&folder.join(plugin))?;
    }
    let own = granting.protected.iter().map(PathBuf::as_path).chain(granting.file.as_deref());
    let protected = own.chain([folder]).chain(SYSTEM.iter().map(Path::new));
    for dir in grants.dirs.iter().flatten() {
        // One that does not exist is refused when an instance starts.
        let Ok(granted) = dir.host.canonicalize() else { continue };
        for protected in protected.clone() {
            let real = protected.canonicalize();
            let real = real.as_deref().unwrap_or(protected);
            let how = if real.starts_with(&granted) {
                "contains"
            } else if granted.starts_with(real) {
                "is in"
            } else {
                continue;
            };
            let (granted, protected) = (dir.host.clone(), protected.to_owned());
            return Err(GrantingError::Protected { granted, how, protected });
        }
    }
    Ok(Granted { grants, pins })
}

/// Whether these grants give more than the defaults. An empty list gives nothing: it says that nothing is
/// granted.
fn grants_something(asked: &Grants, defaults: &Grants) -> bool {
    let dirs = asked.dirs != defaults.dirs && asked.dirs.as_ref().is_some_and(|d| !d.is_empty());
    let http = asked.http != defaults.http && asked.http.as_ref().is_some_and(|h| !h.is_empty());
    let tcp = asked.tcp != defaults.tcp && asked.tcp.as_ref().is_some_and(|t| !t.is_empty());
    dirs || http || tcp || asked.env != defaults.env
}

fn from_file(
    path: &Path,
    plugin: &str,
    defaults: &Grants,
) -> Result<Option<(Grants, Option<Pin>)>, GrantingError> {
    let failed = |why: String| GrantingError::File { file: path.to_owned(), why };
    private::check_edited(path).map_err(|error| failed(error.to_string()))?;
    let bytes = file::read_now(path, sidecar::MAX_SIZE)
        .map_err(|error: ReadError| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut all = sidecar::parse_grants(&text, &name, folder, defaults)?;
    Ok(all.remove(plugin))
}

/// Refuses a plugins folder that others may write to: whoever can put a plugin and its sidecar there
/// would become this user.
///
/// # Errors
/// Which directory is at fault, and what to do.
pub(crate) fn check_folder(granting: &Granting, folder: &Path) -> Result<(), PrivateError> {
    if granting.shared_folder { Ok(()) } else { private::check_edited(folder) }
}

/// The grants of a plugin on a thread that may block.
pub(super) struct Question {
    pub(super) granting: Arc<Granting>,
    pub(super) plugin: String,
    pub(super) sidecar: PathBuf,
    pub(super) asked: Grants,
    pub(super) pin: Option<Pin>,
    pub(super) defaults: Grants,
}

impl Question {
    pub(super) async fn answer(self) -> Result<Granted, GrantingError> {
        let unanswered = self.granting.file.clone().unwrap_or_default();
        let decided = tokio::task::spawn_blocking(move || {
            let Question { granting, plugin, sidecar, asked, pin, defaults } = self;
            let folder = sidecar.parent().unwrap_or(Path::new("."));
            let files = (plugin.as_str(), sidecar.as_path());
            decide(&granting, folder, files, (&asked, pin), &defaults)
        });
        decided.await.unwrap_or_else(|error| {
            Err(GrantingError::File { file: unanswered, why: error.to_string() })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wharf_runtime::DirGrant;

    use super::*;

    fn grants(host: &Path) -> Grants {
        let dir = DirGrant { host: host.to_owned(), guest: "/data".to_owned(), writable: true };
        Grants { dirs: Some(vec![dir]), ..Grants::default() }
    }

    struct Scene {
        root: tempfile::TempDir,
        granting: Granting,
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in ["plugins", "data", "keys"] {
                std::fs::create_dir(root.path().join(folder)).unwrap();
            }
            std::fs::write(root.path().join("keys/tls.key"), "").unwrap();
            std::fs::write(root.path().join("plugins/x.toml"), "").unwrap();
            std::fs::write(root.path().join("plugins/x.wasm"), "").unwrap();
            let protected = vec![root.path().join("keys/tls.key")];
            Scene { root, granting: Granting { protected, ..Granting::default() } }
        }

        fn decide(&self, asked: &Grants) -> Result<Grants, String> {
            let plugins = self.root.path().join("plugins");
            let sidecar = plugins.join("x.toml");
            let files = ("x.wasm", &*sidecar);
            decide(&self.granting, &plugins, files, (asked, None), &Grants::default())
                .map(|granted| granted.grants)
                .map_err(|error| error.to_string())
        }
    }

    #[test]
    fn nothing_is_granted_that_leads_to_more() {
        let scene = Scene::new();
        let root = scene.root.path();
        let data = grants(&root.join("data"));
        assert_eq!(scene.decide(&data), Ok(data.clone()));
        for (host, how) in [
            (root.to_owned(), "contains"),
            (root.join("plugins"), "contains"),
            (root.join("keys"), "contains"),
            (root.join("data/../plugins"), "contains"),
            (PathBuf::from("/"), "contains"),
            (PathBuf::from("/proc/self"), "is in"),
            (PathBuf::from("/dev/shm"), "is in"),
        ] {
            let error = scene.decide(&grants(&host)).unwrap_err();
            assert!(error.contains(&format!("{} {how}", host.display())), "{error}");
        }
        std::os::unix::fs::symlink(root.join("plugins"), root.join("link")).unwrap();
        assert!(scene.decide(&grants(&root.join("link"))).is_err());
    }

    #[test]
    fn a_sidecar_that_others_may_write_to_is_refused_and_a_shared_folder_grants_nothing() {
        let mut scene = Scene::new();
        let data = grants(&scene.root.path().join("data"));
        for name in ["x.toml", "x.wasm"] {
            let file = scene.root.path().join("plugins").join(name);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
            let error = scene.decide(&data).unwrap_err();
            assert!(error.contains("run 'chmod go-w ") && error.contains(name), "{error}");
            assert!(scene.decide(&Grants::default()).is_ok(), "it is granted nothing");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        }
        scene.granting.shared_folder = true;
        let error = scene.decide(&data).unwrap_err();
        assert!(error.contains("(--plugins-shared): name a file with all grants"), "{error}");
        // It may say that nothing is granted.
        let nothing = Grants { http: Some([].into()), ..Grants::default() };
        assert_eq!(scene.decide(&nothing), Ok(nothing.clone()));
    }

    #[test]
    fn a_file_of_grants_is_their_only_source() {
        let mut scene = Scene::new();
        let (root, data) = (scene.root.path().to_owned(), scene.root.path().join("data"));
        let file = root.join("grants.toml");
        let text = format!(
            "[\"x.wasm\"]\ndirs = [{{ host = {data:?}, guest = \"/data\", access = \"read-write\" }}]\n"
        );
        std::fs::write(&file, text).unwrap();
        scene.granting.file = Some(file.clone());
        assert_eq!(scene.decide(&Grants::default()), Ok(grants(&data)));
        let error = scene.decide(&grants(&data)).unwrap_err();
        assert!(error.contains("they come only from"), "{error}");
        std::fs::write(&file, "[\"x.wasm\"]\ndisr = []\n").unwrap();
        let error = scene.decide(&Grants::default()).unwrap_err();
        assert!(error.contains("grants.toml, line 2"), "{error}");
        std::fs::write(&file, "").unwrap();
        assert_eq!(scene.decide(&Grants::default()), Ok(Grants::default()));
        // Pins of both count.
        let (first, second) = (Pin::of(b"1"), Pin::of(b"2"));
        std::fs::write(&file, format!("[\"x.wasm\"]\nsha256 = \"{second}\"\n")).unwrap();
        let sidecar = root.join("plugins/x.toml");
        let granted = decide(
            &scene.granting,
            &root.join("plugins"),
            ("x.wasm", &sidecar),
            (&Grants::default(), Some(first)),
            &Grants::default(),
        );
        assert_eq!(granted.unwrap().pins, [first, second]);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(scene.decide(&Grants::default()).is_err());
    }
}
