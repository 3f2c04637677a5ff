//! Configures and compiles the kernel's objects, and links them with an initramfs.
//!
//! The command line, the initramfs's name and the release suffix are options too, set here. The
//! build tree is usable only where it was made, because kbuild notes absolute paths; the linked
//! kernel contains none of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::fragment::{self, Merged, Origin, Value, Wanted};
use crate::BuildError;
use crate::cache;
use crate::definition::Appliance;
use crate::process::{self, Log};

/// The initramfs's name within the build tree, relative so that no path enters the
/// configuration.
const INITRAMFS: &str = "initramfs.cpio";
/// The release suffix: tells our kernels from Debian's in `uname -r`.
const LOCAL_VERSION: &str = "-wow";

/// What makes the linked kernel bootable.
const BOOT: &str = "arch/x86/boot";

/// What linking makes. All of it is removed before each link, so that an interrupted one leaves
/// nothing that the next could take for finished.
const LINKED: [&str; 10] = [
    "vmlinux",
    "vmlinux.o",
    "vmlinux.a",
    "vmlinux.unstripped",
    "System.map",
    "init/version-timestamp.o",
    "usr/built-in.a",
    "usr/initramfs_data.o",
    "usr/initramfs_inc_data",
    BOOT,
];

/// Reads and merges the definition's fragments, and adds what the definition itself decides.
pub fn options(root: &Path, definition: &Appliance) -> Result<Merged, BuildError> {
    let mut merged = Merged::default();
    for file in &definition.kernel.fragments {
        let path = root.join(file);
        let text = std::fs::read_to_string(&path).map_err(BuildError::io("read", &path))?;
        merged.add(fragment::parse(file, &text)?)?;
    }
    let quoted = |text: &str| Value::Set(format!("\"{text}\""));
    let own = [
        ("CMDLINE_BOOL", Value::Set("y".to_owned())),
        ("CMDLINE", quoted(&definition.kernel.command_line)),
        ("INITRAMFS_SOURCE", quoted(INITRAMFS)),
        ("LOCALVERSION", quoted(LOCAL_VERSION)),
    ];
    merged.add(
        own.into_iter()
            .map(|(name, value)| Wanted {
                name: name.to_owned(),
                value,
                origin: Origin {
                    file: definition.file.clone(),
                    line: definition.kernel.command_line_line,
                },
            })
            .collect(),
    )?;
    Ok(merged)
}

/// The tools that decide what the compiler makes, as they describe themselves.
pub fn toolchain() -> Result<String, BuildError> {
    let mut text = String::new();
    for tool in ["gcc", "ld", "as"] {
        let version = process::output(process::command(tool).arg("--version"))?;
        text.push_str(version.lines().next().unwrap_or_default());
        text.push('\n');
    }
    Ok(text)
}

/// Configures `build` for the source in `source`, checks that every option held, and compiles.
pub fn objects(
    options: &Merged,
    source: &Path,
    build: &Path,
    log: &mut Log<'_>,
) -> Result<(), BuildError> {
    cache::create(build)?;
    let wanted = build.join("wanted.config");
    std::fs::write(&wanted, options.canonical()).map_err(BuildError::io("write", &wanted))?;
    log.compile(
        "configuring the kernel",
        make(source, build)
            .arg("allnoconfig")
            .env("KCONFIG_ALLCONFIG", &wanted),
    )?;
    let config = build.join(".config");
    let text = std::fs::read_to_string(&config).map_err(BuildError::io("read", &config))?;
    options.check(&text)?;
    // An empty archive stands in, so that everything but the real one is compiled.
    write_initramfs(&[], build)?;
    log.compile("compiling the kernel", make(source, build).arg("vmlinux_o"))
}

/// Links the objects in `build` with `initramfs`, and returns the bootable file.
pub fn link(
    initramfs: &[u8],
    source: &Path,
    build: &Path,
    log: &mut Log<'_>,
) -> Result<PathBuf, BuildError> {
    for name in LINKED {
        cache::remove(&build.join(name))?;
    }
    write_initramfs(initramfs, build)?;
    log.compile("linking the kernel", make(source, build).arg("bzImage"))?;
    let image = build.join(BOOT).join("bzImage");
    if image.is_file() {
        return Ok(image);
    }
    Err(BuildError::Input(format!(
        "the kernel's make left no {}",
        image.display()
    )))
}

fn write_initramfs(bytes: &[u8], build: &Path) -> Result<(), BuildError> {
    let archive = build.join(INITRAMFS);
    std::fs::write(&archive, bytes).map_err(BuildError::io("write", &archive))
}

/// kbuild with everything fixed that it would otherwise take from the machine and the hour.
fn make(source: &Path, build: &Path) -> Command {
    let mut command = process::command("make");
    let mut output = std::ffi::OsString::from("O=");
    output.push(build);
    command.arg("-C").arg(source).arg(output);
    // Where in a macro a warning stems from is told to nobody, and knowing it takes gcc a
    // thirteenth of its time.
    command.arg("KCFLAGS=-ftrack-macro-expansion=0");
    command
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("KBUILD_BUILD_USER", "wow")
        .env("KBUILD_BUILD_HOST", "wow")
        .env("KBUILD_BUILD_VERSION", "1");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Definition;

    fn router(root: &Path) -> Appliance {
        match Definition::load(root, "router").unwrap() {
            Definition::Appliance(router) => router,
            Definition::Debian(_) => panic!("the router is an appliance"),
        }
    }

    #[test]
    fn the_definition_decides_the_command_line_and_no_path_enters() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let definition = router(root);
        let text = options(root, &definition).unwrap().canonical();
        let line = format!("CONFIG_CMDLINE=\"{}\"\n", definition.kernel.command_line);
        assert!(text.contains(&line), "{text}");
        assert!(!text.contains(root.to_str().unwrap()));
    }

    #[test]
    fn a_fragment_that_fights_the_definition_is_told_both_places() {
        let root = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut definition = router(repository);
        std::fs::write(
            root.path().join("a.config"),
            "# Why.\nCONFIG_CMDLINE=\"x\"\n",
        )
        .unwrap();
        definition.kernel.fragments = vec!["a.config".into()];
        let error = options(root.path(), &definition).unwrap_err().to_string();
        assert!(
            error.contains("images/router.toml:") && error.contains("a.config:2"),
            "{error}"
        );
    }
}
