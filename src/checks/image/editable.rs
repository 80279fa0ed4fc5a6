//! `editable-trap`: what makes the import of spconv or cumm compile C++, or already did.

use super::ImageContext;
use crate::check::{Code, Finding, Severity};
use crate::facts::{EditableTrap, TrapKind};
use crate::packages;

pub fn judge(scene: &ImageContext<'_>) -> Vec<Finding> {
    let asks_pccm = |name: &str| packages::of(name).is_some_and(|package| package.pccm.get().is_some());
    let installed: Vec<&str> = scene
        .installed
        .keys()
        .copied()
        .filter(|name| asks_pccm(name))
        .collect();
    let traps = &scene.image.editable;
    let asked = scene.stack.packages.iter().any(|r| asks_pccm(&r.normalized));
    if !asked || installed.is_empty() && traps.is_empty() {
        return Vec::new();
    }
    if traps.is_empty() {
        return vec![
            Finding::pass(Code::EditableTrap, "spconv, cumm")
                .observed(installed.join(", "))
                .required("no setup.py, .gitignore, egg-link or build folder beside them")
                .message("no editable-install marker beside spconv or cumm"),
        ];
    }
    // One file is a trap for both packages: said once.
    let mut paths: Vec<&EditableTrap> = Vec::new();
    for trap in traps {
        if paths.iter().all(|seen| seen.path != trap.path) {
            paths.push(trap);
        }
    }
    // Each stops one package's compilation, and only when it is exactly `1`.
    let disabled =
        packages::compiled_by_pccm().all(|(_, name)| scene.stack.env.get(name).is_some_and(|v| v == "1"));
    paths
        .into_iter()
        .map(|trap| {
            let packages: Vec<&str> = traps
                .iter()
                .filter(|t| t.path == trap.path)
                .map(|t| t.package.as_str())
                .collect();
            finding(trap, &packages.join(" and "), disabled)
        })
        .collect()
}

fn finding(trap: &EditableTrap, packages: &str, disabled: bool) -> Finding {
    let path = &trap.path;
    if trap.kind == TrapKind::Build {
        return Finding::problem(Code::EditableTrap, packages)
            .with(packages.split(" and "))
            .observed(path.clone())
            .required("no build folder inside the package")
            .message(format!(
                "{packages} was compiled at an import: {path} is left of it, so its module may not be the wheel's"
            ))
            .hint(format!(
                "In the Dockerfile: rm -r {path}, then pip install --force-reinstall --no-deps the {packages} wheel, \
                 after removing what made it compile (.gitignore or setup.py in site-packages)."
            ));
    }
    let severity = if disabled {
        Severity::Warn
    } else {
        Code::EditableTrap.severity()
    };
    let consequence = if disabled {
        "only the variables of the manifest keep its import from compiling C++"
    } else {
        "an import compiles C++, and fails without nvcc"
    };
    Finding::problem_as(Code::EditableTrap, severity, packages)
        .with(packages.split(" and "))
        .observed(path.clone())
        .required("neither setup.py nor .gitignore beside the package, and no egg-link")
        .message(format!("{path} makes {packages} look like an editable install: {consequence}"))
        .hint(if disabled {
            format!("Remove it: rm {path}.")
        } else {
            format!(
                "Remove it (rm {path}), or set \"SPCONV_DISABLE_JIT\": \"1\" and \"CUMM_DISABLE_JIT\": \"1\" in the \
                 manifest's env."
            )
        })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::check::Status;
    use crate::stack::Stack;

    fn trap(package: &str, path: &str, kind: TrapKind) -> EditableTrap {
        EditableTrap {
            package: package.into(),
            path: path.into(),
            kind,
        }
    }

    fn with(stack: &Stack, traps: Vec<EditableTrap>) -> Vec<Finding> {
        judge(&ImageContext::new(stack, &image(|i| i.editable = traps).image))
    }

    #[test]
    fn one_file_is_said_once_and_names_both() {
        let traps = vec![
            trap("cumm", "/sp/.gitignore", TrapKind::GitIgnore),
            trap("spconv", "/sp/.gitignore", TrapKind::GitIgnore),
        ];
        let findings = with(
            &Stack {
                env: [].into(),
                ..stack()
            },
            traps,
        );
        assert_eq!(
            of(&findings, Code::EditableTrap),
            [(Status::Fail, "cumm and spconv")]
        );
    }

    #[test]
    fn both_variables_turn_the_trap_into_a_warning_but_not_what_it_left() {
        let traps = |kind| vec![trap("cumm", "/sp/x", kind)];
        let env = |pairs: &[(&str, &str)]| Stack {
            env: pairs
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
            ..stack()
        };
        let both = env(&[("SPCONV_DISABLE_JIT", "1"), ("CUMM_DISABLE_JIT", "1")]);
        let one = env(&[("SPCONV_DISABLE_JIT", "1")]);
        let wrong = env(&[("SPCONV_DISABLE_JIT", "1"), ("CUMM_DISABLE_JIT", "true")]);
        for kind in [TrapKind::SetupPy, TrapKind::GitIgnore, TrapKind::EggLink] {
            assert_eq!(with(&both, traps(kind))[0].status, Status::Warn, "{kind:?}");
            assert_eq!(with(&one, traps(kind))[0].status, Status::Fail, "{kind:?}");
            assert_eq!(with(&wrong, traps(kind))[0].status, Status::Fail, "{kind:?}");
        }
        assert_eq!(with(&both, traps(TrapKind::Build))[0].status, Status::Fail);
    }

    #[test]
    fn who_does_not_use_them_hears_nothing() {
        let stack = Stack {
            packages: vec![rule("torch", "*")],
            ..Stack::default()
        };
        assert_eq!(
            with(&stack, vec![trap("cumm", "/sp/setup.py", TrapKind::SetupPy)]),
            []
        );
    }
}
