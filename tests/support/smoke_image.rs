//! An image with Python, the packages that act out a script (tests/fakes/python), and the binary as its ENTRYPOINT.

use std::path::Path;

use crate::support::docker::{self, Base, Content, Image};

/// With this manifest, these files more, and this CMD.
pub fn build(stack: &str, files: &[(&str, Content)], cmd: &str) -> Image {
    let dockerfile = format!(
        "FROM {}\n\
         COPY root /\n\
         ENV PYTHONPATH=/opt/packages PYTHONDONTWRITEBYTECODE=1\n\
         ENTRYPOINT [\"cuda-entrypoint\", \"run\", \"--\"]\n\
         CMD {cmd}\n",
        Base::Debian12.image().name()
    );
    let binary = Content::File(docker::binary());
    let mut context = vec![
        ("root/usr/local/bin/cuda-entrypoint".to_string(), binary),
        (
            "root/etc/cuda-entrypoint/stack.json".to_string(),
            Content::text(stack),
        ),
    ];
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/python");
    add(&packages, "root/opt/packages", &mut context);
    let more = files
        .iter()
        .map(|(path, content)| (format!("root{path}"), content.clone()));
    context.extend(more);
    let context: Vec<(&str, Content)> = context.iter().map(|(p, c)| (p.as_str(), c.clone())).collect();
    Image::build(&dockerfile, &context).unwrap()
}

fn add(folder: &Path, at: &str, context: &mut Vec<(String, Content)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.is_dir() {
            true if name == "__pycache__" => {}
            true => add(&path, &format!("{at}/{name}"), context),
            false => context.push((format!("{at}/{name}"), Content::File(path.clone()))),
        }
    }
}
