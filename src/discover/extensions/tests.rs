use super::*;

#[test]
fn names_that_differ_in_digits_are_alternatives() {
    let same = |a: &str, b: &str| family(a) == family(b);
    assert!(same("/sp/x/_C_cu118.so", "/sp/x/_C_cu124.so"));
    assert!(same("/sp/x/libx9.so", "/sp/x/libx13.so"));
    assert!(!same("/sp/x/_C_cu118.so", "/sp/y/_C_cu118.so"));
    assert!(!same("/sp/x/_C.so", "/sp/x/_C_cu118.so"));
    assert!(!same("/sp/x/_C.so", "/sp/x/_D.so"));
}

#[test]
fn an_extension_of_another_python_is_told_by_its_tag() {
    let tag = Some("cpython-311".to_string());
    for (name, is) in [
        ("x.cpython-310-x86_64-linux-gnu.so", true),
        ("x.cpython-311-x86_64-linux-gnu.so", false),
        ("x.cpython-311t-x86_64-linux-gnu.so", true),
        ("x.abi3.so", false),
        ("x.so", false),
    ] {
        assert_eq!(is_of_another_python(name, tag.as_deref()), is, "{name}");
        assert!(!is_of_another_python(name, None));
    }
}

#[test]
fn folders_are_named_below_site_packages() {
    let sites = ["/v/lib".to_string(), "/v/lib/site-packages".to_string()];
    for (path, folder) in [
        ("/v/lib/site-packages/torchvision/_C.so", "torchvision"),
        ("/v/lib/site-packages/mmcv.libs/x/y.so", "mmcv"),
        (
            "/v/lib/site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so",
            "flash_attn_2_cuda",
        ),
        ("/elsewhere/x.so", ""),
    ] {
        assert_eq!(folder_of(Path::new(path), &sites), folder, "{path}");
    }
}
