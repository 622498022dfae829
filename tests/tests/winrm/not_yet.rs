//! What the pool ought to do and does not yet. Each test says why it is left out; it moves to its neighbours when it passes.

use anyhow::Result;

use crate::outages::comes_back_in_time;

#[tokio::test]
#[ignore = "the pool waits for a host that answers 503 to Create, but not when a session it has already must connect again"]
async fn a_service_that_comes_back_in_time_is_waited_for_with_a_session() -> Result<()> {
    comes_back_in_time(true).await
}
