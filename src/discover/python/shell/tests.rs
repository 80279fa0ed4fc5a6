use super::super::tests::Image;

/// An image with a Python of its own, a virtual environment beside the service, and one of conda's.
fn image() -> Image {
    let image = Image::new();
    image
        .official()
        .venv(
            "work/.venv",
            "usr/local/bin",
            "include-system-site-packages = false",
        )
        .venv(
            "opt/venv",
            "usr/local/bin",
            "include-system-site-packages = false",
        )
        .elf("opt/conda/envs/svc/bin/python3.11")
        .link("opt/conda/envs/svc/bin/python", "python3.11")
        .file("opt/conda/envs/svc/lib/python3.11/os.py", "")
        .dir("opt/conda/envs/svc/conda-meta")
        .dir("opt/conda/conda-meta")
        .file("opt/conda/etc/profile.d/conda.sh", "")
        .set("PATH", "ROOT/usr/local/bin")
        .set("HOME", "ROOT/work");
    for folder in ["work/.venv", "opt/venv"] {
        image.file(&format!("{folder}/bin/activate"), "");
    }
    image
}

fn prefix(image: &Image, argv: &[&str]) -> Result<String, String> {
    let root = image.root().to_str().unwrap();
    let python = image.python_of(argv);
    match python.undetermined {
        Some(why) => Err(why.replace(root, "")),
        None => Ok(python.prefix.unwrap_or_default().replace(root, "")),
    }
}

#[test]
fn lines_of_a_shell() {
    let image = image();
    let (venv, other, system, conda) = ("/work/.venv", "/opt/venv", "/usr/local", "/opt/conda/envs/svc");
    for (line, expected) in [
        ("source .venv/bin/activate && python app.py", venv),
        (". .venv/bin/activate; exec python app.py", venv),
        ("cd ROOT/work && exec .venv/bin/python app.py", venv),
        ("cd /; cd ROOT/opt\nvenv/bin/python app.py", other),
        ("export PATH=\"ROOT/opt/venv/bin:$PATH\"; python app.py", other),
        ("PATH=ROOT/opt/venv/bin:$PATH python app.py", other),
        ("PATH=ROOT/opt/venv/bin:$PATH true; python app.py", system),
        ("V=ROOT/opt/venv; exec \"$V/bin/python\" app.py", other),
        ("exec \"${V:-ROOT/opt/venv}/bin/python\" app.py", other),
        ("~/.venv/bin/python app.py", venv),
        ("python migrate.py && exec ROOT/opt/venv/bin/python app.py", other),
        ("set -- .venv/bin/python app.py; exec \"$@\"", venv),
        (
            "if [ -d ROOT/opt/venv ]; then . ROOT/opt/venv/bin/activate; fi; python app.py",
            other,
        ),
        (
            "if [ -f gone/bin/activate ]; then . gone/bin/activate; fi; python app.py",
            system,
        ),
        (
            "case $1 in a) .venv/bin/python a;; *) .venv/bin/python b;; esac",
            venv,
        ),
        ("f() { echo x; }; f; exec .venv/bin/python", venv),
        ("cat <<EOF\npython x\nEOF\nexec .venv/bin/python", venv),
        ("for i in 1 2; do echo $i; done; .venv/bin/python app.py", venv),
        ("$SUDO mkdir -p /x; exec .venv/bin/python app.py", venv),
        ("nohup .venv/bin/python app.py >log 2>&1 &", venv),
        ("bash -c 'exec .venv/bin/python app.py'", venv),
        (
            ". ROOT/opt/conda/etc/profile.d/conda.sh && conda activate svc && python app.py",
            conda,
        ),
        (
            "eval \"$(ROOT/opt/conda/bin/conda shell.bash hook)\"; CONDA_EXE=ROOT/opt/conda/bin/conda; conda activate ROOT/opt/conda/envs/svc; python x",
            conda,
        ),
    ] {
        assert_eq!(
            prefix(&image, &["sh", "-c", line]).as_deref(),
            Ok(expected),
            "{line}"
        );
    }
}

#[test]
fn what_a_shells_line_does_not_show() {
    let image = image();
    for (line, why) in [
        ("exec \"$PYTHON\" app.py", "is unknown"),
        (".venv/bin/python migrate.py; \"$SERVER\"", "is unknown"),
        ("export PATH=$(cat path); python app.py", "PATH that is not known"),
        ("cd \"$DIR\" && exec bin/python app.py", "working folder"),
        ("source \"$VENV/bin/activate\"; python app.py", "path is unknown"),
        (
            "if [ \"$GPU\" = 1 ]; then . ROOT/opt/venv/bin/activate; fi; python app.py",
            "under a condition",
        ),
        (
            "if x; then exec .venv/bin/python; else exec ROOT/opt/venv/bin/python; fi",
            "more than one",
        ),
        (
            "case $1 in a) exec .venv/bin/python;; esac; exec python",
            "more than one",
        ),
        ("conda activate gone; python app.py", "conda's environment gone"),
        ("eval \"$SETUP\"; python app.py", "eval"),
        ("python3.9 app.py", "not found"),
        ("hatch run serve", "its own configuration"),
    ] {
        let found = prefix(&image, &["sh", "-c", line]);
        assert!(
            found.as_ref().is_err_and(|text| text.contains(why)),
            "{line}: {found:?}"
        );
    }
    // A login shell reads files that set PATH.
    let found = prefix(&image, &["bash", "-lc", "python app.py"]);
    assert!(
        found.as_ref().is_err_and(|text| text.contains("login shell")),
        "{found:?}"
    );
    let found = prefix(&image, &["bash", "-lc", "exec .venv/bin/python app.py"]);
    assert_eq!(found.as_deref(), Ok("/work/.venv"));
    // One that starts no Python leaves it to the other places.
    for line in ["exec ./server", "echo python", "", "exec \"$@\""] {
        assert_eq!(
            prefix(&image, &["sh", "-c", line]).as_deref(),
            Ok("/usr/local"),
            "{line}"
        );
    }
}

#[test]
fn start_scripts() {
    let image = image();
    image.program(
        "work/start.sh",
        "#!/usr/bin/env bash\nset -euo pipefail\ncd \"$(dirname \"$0\")\"\nif [ $# -gt 0 ]; then\n  echo \"$@\"\nfi\n\
         source \"$(cd \"$(dirname \"${BASH_SOURCE[0]}\")\" && pwd)/.venv/bin/activate\"\nexec python \"$@\"\n",
    );
    image.program(
        "work/wrap.sh",
        "#!/bin/bash\nsource ROOT/opt/venv/bin/activate\nexec \"$@\"\n",
    );
    image.program("work/env.sh", "#!/bin/sh\n. ./vars\nexec python app.py\n");
    image.file("work/vars", "export PATH=ROOT/opt/venv/bin:$PATH\n");
    image.program(
        "work/round.sh",
        "#!/bin/sh\n. ./round.sh\n./round.sh\nexec python\n",
    );
    image.program("work/crlf.sh", "#!/bin/sh\r\nexec python\r\n");
    for (command, expected) in [
        (&["./start.sh", "app.py"][..], "/work/.venv"),
        (&["tini", "--", "./wrap.sh", "python", "app.py"], "/opt/venv"),
        (&["./wrap.sh", "ROOT/usr/local/bin/python3"], "/usr/local"),
        (&["bash", "-e", "./env.sh"], "/opt/venv"),
        (&["./crlf.sh"], "/usr/local"),
    ] {
        assert_eq!(prefix(&image, command).as_deref(), Ok(expected), "{command:?}");
    }
    assert!(prefix(&image, &["./round.sh"]).is_err());
}

/// Files are foreign: nothing in them may take long or overflow.
#[test]
fn hostile_text() {
    let image = image();
    for line in [
        "$(dirname ".repeat(5_000),
        format!("cd {}", "\"$(cd ".repeat(3_000)),
        "(".repeat(30_000),
        "if ".repeat(20_000),
        "case x in ".repeat(5_000),
        "${A:-".repeat(10_000),
        "<<E ".repeat(10_000),
        "bash -c 'bash -c ".repeat(3_000),
        "./x;".repeat(10_000),
        "\\".repeat(30_001),
        "=;+=;A+=1;`".to_string(),
        "\u{0}\u{1b}[2J '".to_string(),
    ] {
        let _ = prefix(&image, &["sh", "-c", &line]);
    }
}
