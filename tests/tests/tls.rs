//! TLS on both planes: what is said over it, what keeps a server with wrong files from starting, and
//! that clients that do not finish a handshake hold up nobody.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::CertifiedKey;
use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Connection, Folder, PATIENCE, Rerankd, eventually};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A folder with `cert.pem` and `key.pem` for loopback.
fn certificate() -> Folder {
    let folder = Folder::new();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("the names are good");
    folder.write("cert.pem", cert.pem());
    folder.write("key.pem", signing_key.serialize_pem());
    folder.set_mode("key.pem", 0o600);
    folder
}

fn file(folder: &Folder, name: &str) -> String {
    let path = folder.path().join(name);
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// Starts a server with a folder's certificate on both planes.
fn start(folder: &Folder, flags: &[&str]) -> Rerankd {
    let (cert, key) = (file(folder, "cert.pem"), file(folder, "key.pem"));
    let data = ["--tls-cert", &cert, "--tls-key", &key];
    let admin = ["--admin-tls-cert", &cert, "--admin-tls-key", &key];
    Rerankd::start(&[&data, &admin, flags].concat())
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts a folder's certificate.
fn connect(address: SocketAddr, folder: &Folder, protocols: &[&str]) -> Tls {
    let mut roots = RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_file(folder.path().join("cert.pem"));
    roots.add(root.expect("it is there")).expect("it is good");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let name = ServerName::try_from("127.0.0.1").expect("it is an address");
    let client = ClientConnection::new(Arc::new(config), name).expect("the configuration is good");
    let stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is no zero");
    StreamOwned::new(client, stream)
}

/// One GET; the answer as text.
fn get(tls: &mut Tls, host: SocketAddr, path: &str, more: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    tls.write_all(request.as_bytes())?;
    let mut answer = String::new();
    tls.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn both_planes_speak_http_1_1_over_tls_and_nothing_else() {
    let folder = certificate();
    let server = start(&folder, &[]);
    let (data, admin) = (server.address(), server.admin_address());
    let greeting = server.greeting();
    assert!(
        greeting.contains(&format!(" listening on https://{data} (")),
        "{greeting}"
    );
    let greeting = server.admin_greeting();
    assert!(
        greeting.starts_with(&format!("admin plane on https://{admin}, ")),
        "{greeting}"
    );

    let mut tls = connect(data, &folder, &["h2", "http/1.1"]);
    let answer = get(&mut tls, data, "/health/ready", "").expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let token = format!("Authorization: Bearer {}\r\n", server.admin_token());
    let own = format!("{token}Origin: https://{admin}\r\n");
    for more in [&token, &own] {
        let mut tls = connect(admin, &folder, &[]);
        let answer = get(&mut tls, admin, "/metrics", more).expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("rerankd_runs_total"), "{answer}");
    }
    let clear = format!("{token}Origin: http://{admin}\r\n");
    let mut tls = connect(admin, &folder, &[]);
    let answer = get(&mut tls, admin, "/metrics", &clear).expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");

    for address in [data, admin] {
        let mut tls = connect(address, &folder, &["h2"]);
        let refused = get(&mut tls, address, "/health/ready", "").expect_err("there is no HTTP/2");
        assert!(
            refused.to_string().contains("NoApplicationProtocol"),
            "{refused}"
        );
        // A client that does not know this certificate.
        let mut tls = connect(address, &certificate(), &[]);
        get(&mut tls, address, "/health/ready", "").expect_err("it must not trust this one");
        let mut clear = Connection::open(address).expect("it listens");
        let sent = clear.request(
            "GET",
            "/health/ready",
            &[("Host", &address.to_string())],
            b"",
        );
        sent.expect("it is open");
        // Who forgot the `s` is told so, and nothing else.
        let answer = clear.answer().expect("it is answered");
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(
            answer.text().contains("call it by https://"),
            "{}",
            answer.text()
        );
        assert!(clear.is_closed_by_server());
    }
}

#[test]
fn one_plane_may_have_tls_without_the_other() {
    let folder = certificate();
    let (cert, key) = (file(&folder, "cert.pem"), file(&folder, "key.pem"));
    let server = Rerankd::start(&["--tls-cert", &cert, "--tls-key", &key]);
    assert!(
        server.greeting().contains("https://"),
        "{}",
        server.greeting()
    );
    server.admin_call("GET", "/v1/models", &[], b"").ok();
    // A group may read the key.
    folder.set_mode("key.pem", 0o640);
    let server = Rerankd::start(&["--admin-tls-cert", &cert, "--admin-tls-key", &key]);
    server.get("/health/ready").ok();
    let mut tls = connect(server.admin_address(), &folder, &[]);
    let answer = get(&mut tls, server.admin_address(), "/metrics", "").expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

fn refused(flags: &[&str]) -> Refusal {
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    Rerankd::run(Rerankd::command(&[&arguments[..], flags].concat()))
}

#[test]
fn files_that_are_wrong_keep_it_from_starting() {
    let folder = certificate();
    let other = certificate();
    folder.write("text.pem", "this is no certificate\n");
    folder.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    folder.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    folder.write(
        "weak.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    folder.copy(&folder.path().join("key.pem"), "open.pem");
    for (name, mode) in [
        ("text.pem", 0o600),
        ("weak.pem", 0o600),
        ("open.pem", 0o644),
    ] {
        folder.set_mode(name, mode);
    }
    let name = |name: &str| file(&folder, name);
    let (cert, key) = (name("cert.pem"), name("key.pem"));
    for plane in ["", "admin-"] {
        let (cert_flag, key_flag) = (format!("--{plane}tls-cert"), format!("--{plane}tls-key"));
        let check = |cert: &str, key: &str, wrong: (&str, &str), said: &str| {
            let refusal = refused(&[&cert_flag, cert, &key_flag, key]);
            assert_eq!(
                (refusal.code, refusal.stdout.as_str()),
                (Some(1), ""),
                "{refusal:?}"
            );
            let line = refusal.stderr.trim_end();
            let start = format!("rerankd: `{}` ({}): ", wrong.0, wrong.1);
            assert!(line.starts_with(&start) && line.contains(said), "{line}");
            assert!(!line.contains('\n'), "{line}");
        };
        let nowhere = "/nonexistent/x.pem";
        check(nowhere, &key, (nowhere, &cert_flag), "No such file");
        check(&cert, nowhere, (nowhere, &key_flag), "No such file");
        for (file, said) in [
            ("text.pem", "there is no certificate in it; PEM is expected"),
            ("key.pem", "there is no certificate in it; PEM is expected"),
            ("cut.pem", "no PEM: "),
            ("broken.pem", "the certificate cannot be used: "),
        ] {
            let file = name(file);
            check(&file, &key, (&file, &cert_flag), said);
        }
        for (file, said) in [
            ("text.pem", "there is no private key in it; PEM is expected"),
            ("weak.pem", "the key cannot be used: "),
            ("open.pem", "its mode must be 0600 or 0640, `chmod 600 "),
        ] {
            let file = name(file);
            check(&cert, &file, (&file, &key_flag), said);
        }
        let foreign = file(&other, "key.pem");
        let said = format!("it is not the key of the certificate `{cert}` ({cert_flag})");
        check(&cert, &foreign, (&foreign, &key_flag), &said);

        for (given, missing) in [(&cert_flag, &key_flag), (&key_flag, &cert_flag)] {
            let refusal = refused(&[given, &cert]);
            assert_eq!(refusal.code, Some(2), "{refusal:?}");
            assert_eq!(
                refusal.stderr,
                format!("rerankd: {given} needs {missing} as well\n")
            );
        }
    }
}

#[test]
fn a_new_certificate_is_shown_without_a_restart() {
    let folder = certificate();
    let server = start(&folder, &[]);
    let address = server.address();
    let mut old = connect(address, &folder, &[]);
    let shaken = old.conn.complete_io(&mut old.sock);
    shaken.expect("the first is trusted");

    // As tools for renewal do it: another file in the place of the old one.
    let renewed = certificate();
    let rename = |name: &str| {
        let aside = folder.path().join(format!("{name}.new"));
        std::fs::copy(renewed.path().join(name), &aside).expect("it can be copied");
        std::fs::rename(aside, folder.path().join(name)).expect("it can be renamed");
    };
    // A certificate without its key is shown to nobody.
    rename("cert.pem");
    eventually("it is said", || {
        let _ = get(
            &mut connect(address, &folder, &[]),
            address,
            "/health/ready",
            "",
        );
        let said = server
            .stderr()
            .contains("is not the key of the certificate");
        said.then_some(())
    });
    rename("key.pem");
    for address in [address, server.admin_address()] {
        eventually("the new one is shown", || {
            let mut new = connect(address, &renewed, &[]);
            get(&mut new, address, "/health/ready", "").ok()
        });
    }
    // Connections that are open go on.
    let answer = get(&mut old, address, "/health/ready", "").expect("it is open");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn off_loopback_tokens_do_not_go_in_clear_unless_told_so() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refusal = refused(&["--admin-listen", address]);
        assert_eq!(refusal.code, Some(2), "{refusal:?}");
        for part in [
            &format!("`{address}` (--admin-listen) can be reached from other machines"),
            "--admin-tls-cert",
            "--insecure",
        ] {
            assert!(refusal.stderr.contains(part), "{refusal:?}");
        }
    }
    let folder = certificate();
    let (cert, key) = (file(&folder, "cert.pem"), file(&folder, "key.pem"));
    let off = ["--admin-listen", "0.0.0.0:0"];
    let tls = ["--admin-tls-cert", &cert, "--admin-tls-key", &key];
    let loopback =
        |server: &Rerankd| SocketAddr::from(([127, 0, 0, 1], server.admin_address().port()));
    let server = Rerankd::start(&[&off[..], &tls].concat());
    let address = loopback(&server);
    let answer = get(&mut connect(address, &folder, &[]), address, "/metrics", "");
    let answer = answer.expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    // There is a token all the same.
    let server = Rerankd::start(&[&off[..], &["--insecure"]].concat());
    let address = loopback(&server).to_string();
    let call = |headers: &[(&str, &str)]| server.admin_call("GET", "/v1/models", headers, b"");
    call(&[("Host", &address)]).ok();
    let nobody = [("Host", address.as_str()), ("Authorization", "")];
    assert_eq!(call(&nobody).status, 401);
    let unspecified = format!("0.0.0.0:{}", server.admin_address().port());
    assert_eq!(call(&[("Host", &unspecified)]).status, 403);
}

#[test]
fn a_handshake_that_is_never_finished_holds_up_nobody() {
    let folder = certificate();
    // Half the time after which such a client is given up: draining does not wait for that.
    let mut server = start(&folder, &["--drain-ms", "5000"]);
    let address = server.address();
    let silent: Vec<Connection> = (0..100)
        .map(|_| Connection::open(address).expect("it listens"))
        .collect();
    let mut begun = Connection::open(address).expect("it listens");
    begun.send([0x16, 0x03, 0x01]).expect("it is open");
    let mut tls = connect(address, &folder, &[]);
    let answer = get(&mut tls, address, "/health/ready", "").expect("it is answered");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    assert!(server.stderr().contains("drained"), "{}", server.stderr());
    drop(silent);

    let server = start(&folder, &["--idle-timeout-ms", "100"]);
    for address in [server.address(), server.admin_address()] {
        let mut silent = Connection::open(address).expect("it listens");
        assert!(silent.is_closed_by_server(), "it waits for ever");
        let mut begun = Connection::open(address).expect("it listens");
        begun.send([0x16, 0x03, 0x01]).expect("it is open");
        assert!(begun.is_closed_by_server(), "it waits for ever");
    }
}

#[test]
fn what_is_said_of_tls_means_the_same_as_a_file() {
    let print = |flags: &[&str]| {
        let printed = Rerankd::run(Rerankd::command(
            &[&["serve", "--print-config"], flags].concat(),
        ));
        assert_eq!(
            (printed.code, printed.stderr.as_str()),
            (Some(0), ""),
            "{printed:?}"
        );
        printed.stdout
    };
    let first = print(&[
        "--tls-cert",
        "a.pem",
        "--tls-key",
        "b.pem",
        "--admin-tls-cert",
        "c.pem",
        "--admin-tls-key",
        "d.pem",
        "--admin-listen",
        "0.0.0.0:7",
        "--admin-allow-host",
        "search.internal,x:1",
        "--data-dir",
        "/state",
    ]);
    for line in [
        "tls_cert = \"a.pem\"",
        "admin_tls_key = \"d.pem\"",
        "admin_listen = \"0.0.0.0:7\"",
        "admin_allow_hosts = [\"search.internal\", \"x:1\"]",
        "data_dir = \"/state\"",
    ] {
        assert!(
            first.lines().any(|printed| printed == line),
            "expected `{line}` in:\n{first}"
        );
    }
    assert!(!first.contains("insecure"), "{first}");
    let folder = Folder::new();
    let file: &Path = &folder.write("rerankd.toml", &first);
    assert_eq!(
        first,
        print(&["--config", file.to_str().expect("the path is UTF-8")])
    );
}
