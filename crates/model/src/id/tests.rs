use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

proptest! {
    #[test]
    fn ids_round_trip_and_sort_by_age(a in 0_i64..1 << 47, b in 0_i64..1 << 47, r: u64, s: u64) {
        let (one, two) = (OperationId::new(at(a), r), OperationId::new(at(b), s));
        prop_assert_eq!(&one.as_str().parse::<OperationId>().unwrap(), &one);
        prop_assert_eq!(one.moment(), at(a));
        if a != b {
            prop_assert_eq!(a < b, one < two);
        }
    }

    #[test]
    fn any_text_is_an_id_or_an_error(text in ".*") {
        if let Ok(id) = text.parse::<TokenId>() {
            prop_assert_eq!(id.as_str(), text);
        }
    }
}

#[test]
fn an_id_of_another_kind_is_refused() {
    let app = AppId::new(at(1), 1);
    assert!(app.as_str().parse::<DeployId>().is_err());
}
