//! The OCI image: the program alone, in a tar that is an image layout (`podman`, `skopeo`) and that older
//! `docker load` reads as well.
//!
//! The layout is version 1.0.0 of the image specification; `manifest.json` is docker's older index of the same
//! blobs.

use serde_json::{Value, json};

use crate::BuildError;
use crate::archive::{self, Entry};
use crate::digest::Digest;

/// `nobody`: the program needs no root when it only routes.
const USER: u64 = 65534;
/// Where the node's identity is kept.
const STATE: &str = "/var/lib/wow";
/// Of the image, which would otherwise differ from build to build.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// The image's tar.
pub fn image(program: &[u8], release: &str) -> Result<Vec<u8>, BuildError> {
    let layer = layer(program)?;
    let compressed = archive::gzip(&layer)?;
    let config = to_bytes(&config(&layer, release));
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &compressed)],
    }));
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/wow:{release}"),
        "org.opencontainers.image.ref.name": release,
    });
    let index = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }));
    let docker = to_bytes(&json!([{
        "Config": blob(&config),
        "RepoTags": [format!("wow:{release}")],
        "Layers": [blob(&compressed)],
    }]));
    archive::tar(&[
        Entry::file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::file("index.json", 0o644, &index),
        Entry::file("manifest.json", 0o644, &docker),
        Entry::directory("blobs"),
        Entry::directory("blobs/sha256"),
        Entry::file(blob(&manifest), 0o644, &manifest),
        Entry::file(blob(&config), 0o644, &config),
        Entry::file(blob(&compressed), 0o644, &compressed),
    ])
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The file system: the program, and directories that are its own.
fn layer(program: &[u8]) -> Result<Vec<u8>, BuildError> {
    archive::tar(&[
        Entry::directory("run"),
        Entry::directory("run/wow").owned_by(USER),
        Entry::directory("var"),
        Entry::directory("var/lib"),
        Entry::directory("var/lib/wow").owned_by(USER),
        Entry::file("wow", 0o755, program),
    ])
}

fn config(layer: &[u8], release: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/", "WOW_SOCKET=/run/wow/control.sock"],
            "Entrypoint": ["/wow"],
            "Cmd": ["run", "--ticket", "/run/secrets/wow-ticket", "--state", STATE, "--guest", "none"],
            "Volumes": { STATE: {} },
            "Labels": {
                "org.opencontainers.image.title": "wow",
                "org.opencontainers.image.version": release,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", Digest::of(layer))] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask bundle" }],
    })
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", Digest::of(bytes)),
        "size": bytes.len(),
    })
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", Digest::of(bytes))
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    #[test]
    fn every_descriptor_leads_to_its_blob() {
        let bytes = image(b"program", "1.2.3").unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let files: BTreeMap<String, Vec<u8>> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect();
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let follow = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let name = format!("blobs/{}", digest.replace(':', "/"));
            let content = &files[&name];
            assert_eq!(descriptor["size"], content.len());
            assert_eq!(digest, format!("sha256:{}", Digest::of(content)));
            name
        };
        let manifest = follow(&json("index.json")["manifests"][0]);
        let manifest = json(&manifest);
        let config = follow(&manifest["config"]);
        let layer = follow(&manifest["layers"][0]);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&files[&layer][..])
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(
            json(&config)["rootfs"]["diff_ids"][0],
            format!("sha256:{}", Digest::of(&unpacked))
        );
        let docker = json("manifest.json");
        assert_eq!(docker[0]["Config"], config);
        assert_eq!(docker[0]["Layers"][0], layer);
    }
}
