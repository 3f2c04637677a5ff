//! The bill of materials: what of others is in an image, as CycloneDX 1.6. Tools that made it are in the
//! manifest alone. It names no time and has no serial number, so that equal images have equal bills.

use serde::Serialize;

use crate::cache::Fact;

/// The bill's file beside the manifest.
pub const FILE: &str = "sbom.cdx.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bill<'a> {
    bom_format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    component: Component<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: &'a str,
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Licence<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
struct Licence<'a> {
    expression: &'a str,
}

/// The bill of the image of this name.
pub fn bill(image: &str, inputs: &[Fact]) -> serde_json::Result<Vec<u8>> {
    let components = inputs.iter().filter_map(|fact| {
        let package = fact.package.as_ref()?;
        let hash = fact.sha256.map(|digest| Hash {
            alg: "SHA-256",
            content: digest.to_string(),
        });
        let licence = package.licence.as_deref();
        Some(Component {
            kind: "library",
            reference: &package.purl,
            name: &fact.name,
            version: &fact.version,
            hashes: hash.into_iter().collect(),
            licenses: licence
                .map(|expression| Licence { expression })
                .into_iter()
                .collect(),
            purl: Some(&package.purl),
        })
    });
    let bill = Bill {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        version: 1,
        metadata: Metadata {
            component: Component {
                kind: "operating-system",
                reference: image,
                name: image,
                version: env!("CARGO_PKG_VERSION"),
                hashes: Vec::new(),
                licenses: Vec::new(),
                purl: None,
            },
        },
        components: components.collect(),
    };
    let mut text = serde_json::to_vec_pretty(&bill)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Package;
    use crate::digest::Digest;

    #[test]
    fn what_is_in_the_image_is_listed_and_its_tools_are_not() {
        let less = Fact {
            name: "less".into(),
            version: "1:668~a-1".into(),
            sha256: Some(Digest::of(b"less")),
            package: Some(Package::debian("less", "1:668~a-1")),
            note: None,
        };
        let tokio = Fact {
            name: "tokio".into(),
            version: "1.54.0".into(),
            package: Some(Package::of_cargo("tokio", "1.54.0", "MIT")),
            ..Fact::default()
        };
        let compiler = Fact {
            name: "compiler".into(),
            ..Fact::default()
        };
        let bill = bill("small", &[less, compiler, tokio]).unwrap();
        let read: Value = serde_json::from_slice(&bill).unwrap();
        assert_eq!(read["bomFormat"], "CycloneDX");
        assert_eq!(read["metadata"]["component"]["name"], "small");
        let [less, tokio] = &read["components"].as_array().unwrap()[..] else {
            panic!("{read}");
        };
        assert_eq!(less["purl"], "pkg:deb/debian/less@1%3A668~a-1?arch=amd64");
        assert_eq!(
            less["hashes"][0]["content"],
            Digest::of(b"less").to_string()
        );
        assert_eq!(tokio["licenses"], json!([{"expression": "MIT"}]));
        assert_eq!(tokio["bom-ref"], "pkg:cargo/tokio@1.54.0");
    }
}
