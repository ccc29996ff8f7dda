use super::*;

/// The names of the variants of `Endpoint`, read from its source.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../endpoint.rs");
    let body = source.split("pub enum Endpoint {").nth(1).unwrap().split("\n}").next().unwrap();
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines
        .filter_map(|line| line.split([' ', ',', '(', '{']).next())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn every_endpoint_is_described() {
    let mut described = BTreeSet::new();
    for template in PATHS {
        let found: Vec<_> = routed(template).collect();
        assert!(!operation::sample(template).contains('{'), "{template} has an unknown parameter");
        assert!(!found.is_empty(), "{template} leads nowhere");
        for (_, endpoint) in found {
            let name = format!("{endpoint:?}");
            described.insert(name.split([' ', '(', '{']).next().unwrap().to_owned());
        }
    }
    let described: BTreeSet<&str> = described.iter().map(String::as_str).collect();
    assert!(variants().len() > 20);
    assert_eq!(described, variants());
}

#[test]
fn references_lead_somewhere_and_ids_are_unique() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(document(), &mut found);
    assert!(found.len() > 100);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document().pointer(pointer).is_some(), "{reference}");
    }
    let schemas = document()["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        let used = format!("#/components/schemas/{name}");
        assert!(found.contains(&used.as_str()), "{name} is used nowhere");
    }
    let operations = document()["paths"].as_object().unwrap().values();
    let operations: Vec<_> =
        operations.flat_map(|item| item.as_object().unwrap().values()).collect();
    let ids: BTreeSet<_> =
        operations.iter().map(|operation| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len());
}

#[test]
fn who_asks_how_far_an_upload_is_may_end_one_that_has_no_room() {
    for path in ["/v1/tus/{uploadId}", "/v1/uploads/{uploadId}"] {
        let refused = &document()["paths"][path]["head"]["responses"]["413"];
        for code in ["too_large", "quota_exceeded"] {
            assert!(refused.to_string().contains(code), "{path}: {refused}");
        }
    }
}
