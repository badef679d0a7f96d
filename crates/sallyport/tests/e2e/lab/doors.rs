//! A gateway that takes HTTP/1 and HTTP/2, without TLS and with it; and Python for its clients.

use std::net::TcpStream;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use sallyport_testkit::{Deadline, Program, eventually, foreign, free_ports};
use tempfile::TempDir;

use super::{Alone, soon, write};

/// A gateway with two ports, on a declarative file.
pub(crate) struct Doors {
    pub(crate) program: Program,
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    /// The certificate of `localhost` that it shows, and that clients can trust.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) dir: TempDir,
}

impl Doors {
    #[track_caller]
    pub(crate) fn start(declarative: &str, more: &str) -> Doors {
        let doors = Doors::start_quiet(declarative, more);
        doors.program.wait_for_line("gateway started", soon());
        doors
    }

    /// One that may not say when it has started; it is asked.
    #[track_caller]
    pub(crate) fn start_quiet(declarative: &str, more: &str) -> Doors {
        let dir = tempfile::tempdir().unwrap();
        let [plain, tls] = free_ports();
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        let cert = params.self_signed(&key).unwrap().pem();
        let (cert_file, key_file) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        write(&cert_file, cert);
        write(&key_file, key.serialize_pem());
        let more = format!(
            "ssl_cert = {}\nssl_cert_key = {}\n{more}",
            cert_file.display(),
            key_file.display()
        );
        let listen = format!("127.0.0.1:{plain} http2, 127.0.0.1:{tls} http2 ssl");
        let program = Alone::launch(dir.path(), declarative, 0, &more)
            .env("KONG_PROXY_LISTEN", listen)
            .start();
        eventually("the gateway listens", soon(), || {
            TcpStream::connect(("127.0.0.1", plain)).is_ok()
        });
        Doors {
            program,
            plain,
            tls,
            cert: cert_file,
            key: key_file,
            dir,
        }
    }
}

/// A Python that has this module; `package` says where it comes from. See [`foreign`].
#[track_caller]
pub(crate) fn python(module: &str, package: &str) -> Option<PathBuf> {
    let python = foreign("python3", "Debian package python3")?;
    let has_module = Program::new(&python)
        .args(["-c", &format!("import {module}")])
        .run(Deadline::secs(60));
    if has_module.status.success() {
        return Some(python);
    }
    // says so, and fails where skipping is forbidden
    foreign(&format!("python3 with {module}"), package);
    None
}
