//! Rendered rules, judged by programs that know the formats: Aerleon, kubernetes-validate, terraform.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod fixture;

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fixture::node;
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Flow, Packet, Side};
use sallyport_testkit::{Deadline, Finished, Program, foreign};

const NODES: [&str; 3] = ["edge", "node1", "node2"];

fn run(program: &Path, dir: &Path, args: &[&str]) -> Finished {
    Program::new(program)
        .args(args)
        .dir(dir)
        .run(Deadline::secs(120))
}

/// The policy of a node, compiled by aclgen; the folder and aclcheck.
fn compiled(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let aclgen = foreign("aclgen", "aerleon of PyPI")?;
    let aclcheck = foreign("aclcheck", "aerleon of PyPI")?;
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("rules.sh");
    std::fs::write(&script, firewall(&node(name), Format::Aerleon)).unwrap();
    run(Path::new("sh"), dir.path(), &[script.to_str().unwrap()]).success();
    let args = "--base_directory policies --definitions_directory def --output_directory .";
    let args: Vec<&str> = args.split(' ').collect();
    run(&aclgen, dir.path(), &args).success();
    let rules = std::fs::read_to_string(dir.path().join("sallyport.nft")).unwrap();
    assert!(rules.contains("chain"), "{rules}");
    Some((dir, aclcheck))
}

/// A few flows of each kind: allowed and not, each direction, both transports.
fn sample() -> Vec<Packet> {
    let mut packets = Vec::new();
    for side in [Side::In, Side::Out] {
        for peer in [
            "192.0.2.11",
            "192.0.2.20",
            "192.0.2.53",
            "192.0.2.77",
            "10.1.2.3",
        ] {
            for flow in [
                "443/tcp",
                "8000/tcp",
                "9001/tcp",
                "53/udp",
                "8071/udp",
                "65535/tcp",
            ] {
                let flow = Flow::try_from(flow.to_owned()).unwrap();
                let peer: IpAddr = peer.parse().unwrap();
                packets.push(Packet { side, flow, peer });
            }
        }
    }
    packets
}

#[test]
fn aerleon_compiles_the_policy_and_agrees_packet_by_packet() {
    for (name, own) in [("edge", "192.0.2.20"), ("node1", "192.0.2.11")] {
        let Some((dir, aclcheck)) = compiled(name) else {
            return;
        };
        let policy = node(name);
        let (mut allowed, mut all) = (0, 0);
        for packet in sample() {
            let peer = packet.peer.to_string();
            if peer == own {
                continue;
            }
            let (from, to, way) = match packet.side {
                Side::In => (peer.as_str(), own, "-in-"),
                Side::Out => (own, peer.as_str(), "-out-"),
            };
            let flow = packet.flow.to_string();
            let (port, transport) = flow.split_once('/').unwrap();
            let args = [
                "-p",
                "policies/pol/sallyport.yaml",
                "--definitions-directory",
                "def",
                "--base-directory",
                "policies",
                "-s",
                from,
                "-d",
                to,
                "--proto",
                transport,
                "--dport",
                port,
                "--sport",
                "40000",
            ];
            let done = run(&aclcheck, dir.path(), &args).success();
            // aclcheck looks at the terms of both directions; ours say theirs in their names.
            let matched = done
                .stdout
                .lines()
                .any(|it| it.contains("term:") && it.contains(way));
            let want = policy.allows(&packet);
            assert_eq!(matched, want, "{name}: {packet:?}\n{}", done.stdout);
            allowed += usize::from(want);
            all += 1;
        }
        assert!(allowed > 0 && allowed < all, "{name}: {allowed} of {all}");
    }
}

#[test]
fn kubernetes_schema_accepts_the_manifests() {
    let Some(validate) = foreign("kubernetes-validate", "kubernetes-validate of PyPI") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for name in NODES {
        let file = format!("{name}.yaml");
        let text = firewall(&node(name), Format::Kubernetes);
        std::fs::write(dir.path().join(&file), &text).unwrap();
        run(&validate, dir.path(), &["--strict", &file]).success();
    }
    // The judge does refuse: a policy type that Kubernetes does not have.
    let text = firewall(&node("edge"), Format::Kubernetes).replace("protocol: TCP", "protcol: TCP");
    std::fs::write(dir.path().join("bad.yaml"), text).unwrap();
    let done = run(&validate, dir.path(), &["--strict", "bad.yaml"]);
    assert!(!done.status.success(), "{done:?}");
}

/// No package registry has it, so it may be missing even where nothing else may; `shapes.rs` judges
/// the files everywhere.
fn terraform(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join("terraform"));
    let found = found.find(|file| file.is_file());
    if found.is_none() {
        skipped(test, "needs terraform (no package registry has it)");
    }
    found
}

/// Says so past the capture of output; where standard error is closed there is nobody to tell.
fn skipped(test: &str, why: &str) {
    _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// What the clouds' plugins say, those of them that are in a folder of this machine: a mirror of
/// Terraform's registry, named by `SALLYPORT_TEST_TERRAFORM_PLUGINS`.
#[test]
fn terraform_validates_what_it_has_plugins_for() {
    const TEST: &str = "terraform_validates_what_it_has_plugins_for";
    let Some(terraform) = terraform(TEST) else {
        return;
    };
    let Some(plugins) = std::env::var_os("SALLYPORT_TEST_TERRAFORM_PLUGINS").map(PathBuf::from)
    else {
        skipped(
            TEST,
            "SALLYPORT_TEST_TERRAFORM_PLUGINS names no folder of plugins",
        );
        return;
    };
    for (provider, format) in [
        ("aws", Format::Aws),
        ("google", Format::Google),
        ("azurerm", Format::Azure),
    ] {
        let there = plugins
            .join("registry.terraform.io/hashicorp")
            .join(provider);
        if !there.is_dir() {
            skipped(
                TEST,
                &format!("no plugin {provider} in {}", plugins.display()),
            );
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let terraform = |args: &[&str]| {
            Program::new(&terraform)
                .args(args)
                .env("CHECKPOINT_DISABLE", "1")
                .env("TF_DATA_DIR", dir.path().join(".terraform"))
                .dir(dir.path())
                .run(Deadline::secs(300))
        };
        let mut first = true;
        for name in NODES {
            std::fs::write(dir.path().join("main.tf"), firewall(&node(name), format)).unwrap();
            if std::mem::take(&mut first) {
                let from = format!("-plugin-dir={}", plugins.display());
                terraform(&["init", "-backend=false", "-no-color", &from]).success();
            }
            terraform(&["validate", "-no-color"]).success();
        }
        let bad = firewall(&node("edge"), format).replace("protocol ", "protokol ");
        std::fs::write(dir.path().join("main.tf"), bad).unwrap();
        assert!(!terraform(&["validate", "-no-color"]).status.success());
    }
}

/// Syntax and layout.
#[test]
fn terraform_reads_the_files() {
    let Some(terraform) = terraform("terraform_reads_the_files") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for name in NODES {
        for format in [Format::Aws, Format::Google, Format::Azure] {
            let file = format!("{name}-{format}.tf");
            std::fs::write(dir.path().join(&file), firewall(&node(name), format)).unwrap();
            run(&terraform, dir.path(), &["fmt", "-check", "-diff", &file]).success();
        }
    }
    std::fs::write(dir.path().join("bad.tf"), "resource \"x\" {").unwrap();
    let done = run(&terraform, dir.path(), &["fmt", "-check", "bad.tf"]);
    assert!(!done.status.success(), "{done:?}");
}
