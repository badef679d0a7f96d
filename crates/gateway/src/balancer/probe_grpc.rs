//! Asking a target by gRPC's own health protocol, `grpc.health.v1.Health/Check`.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

/// A request for the health of the whole server: a message without fields.
const QUESTION: &[u8] = &[0, 0, 0, 0, 0];
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1024;
/// `SERVING` of the protocol's `ServingStatus`.
const SERVING: u8 = 1;
/// gRPC's `UNIMPLEMENTED`.
const UNIMPLEMENTED: &str = "12";

/// Asks over an open connection. An HTTP status that says the same: 200 for a server that serves,
/// 404 for one that does not know the protocol, 503 otherwise, or what HTTP said itself.
///
/// # Errors
/// The connection failed, or the peer does not speak HTTP/2.
pub(super) async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    scheme: &str,
    authority: &str,
    headers: &[(String, String)],
) -> io::Result<u16> {
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .map_err(io::Error::other)?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = fields(headers);
    let asking = async {
        let mut sender = sender.ready().await?;
        let (response, mut body) = sender.send_request(request, false)?;
        body.send_data(Bytes::from_static(QUESTION), true)?;
        let (head, mut response) = response.await?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(data) = response.data().await {
            let data = data?;
            _ = response.flow_control().release_capacity(data.len());
            if answer.len() + data.len() > ANSWER_BYTES_MAX {
                return Ok(503);
            }
            answer.extend_from_slice(&data);
        }
        let trailers = response.trailers().await?;
        let status = |map: &HeaderMap| {
            let status = map.get("grpc-status")?.to_str().ok()?;
            Some(status.to_owned())
        };
        let grpc = trailers.as_ref().and_then(status);
        let grpc = grpc.or_else(|| status(&head.headers));
        Ok::<_, h2::Error>(verdict(head.status.as_u16(), grpc.as_deref(), &answer))
    };
    tokio::select! {
        // first the answer: a server may close right behind it
        biased;
        asked = asking => asked.map_err(io::Error::other),
        ended = connection => match ended {
            Ok(()) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// Metadata of the question. What would not stay one line is left out.
fn fields(headers: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value))
            && name != http::header::HOST
        {
            map.append(name, value);
        }
    }
    map.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    map.insert(http::header::TE, HeaderValue::from_static("trailers"));
    map
}

fn verdict(http: u16, grpc: Option<&str>, answer: &[u8]) -> u16 {
    match grpc {
        _ if http != 200 => http,
        Some("0") if serving(answer) == Some(SERVING) => 200,
        Some(UNIMPLEMENTED) => 404,
        _ => 503,
    }
}

/// `ServingStatus` in a framed `HealthCheckResponse`: field 1, a small number.
fn serving(mut answer: &[u8]) -> Option<u8> {
    if answer.len() < 5 || answer.get_u8() != 0 {
        return None; // compressed: nobody asked for that
    }
    let length = answer.get_u32() as usize;
    match answer.get(..length)? {
        [] => Some(0),
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_verdict() {
        let serves = &[0, 0, 0, 0, 2, 8, 1][..];
        for (http, grpc, answer, expected) in [
            (200, Some("0"), serves, 200),
            (200, Some("0"), &[0, 0, 0, 0, 2, 8, 2], 503),
            (200, Some("0"), &[0, 0, 0, 0, 0], 503),
            (200, Some("0"), &[1, 0, 0, 0, 2, 8, 1], 503),
            (200, Some("0"), &[0, 255, 255, 255, 255, 8, 1], 503),
            (200, Some("0"), &[], 503),
            (200, Some("12"), &[], 404),
            (200, Some("14"), &[], 503),
            (200, None, serves, 503),
            (401, Some("16"), &[], 401),
            (502, None, &[], 502),
        ] {
            assert_eq!(
                verdict(http, grpc, answer),
                expected,
                "{http} {grpc:?} {answer:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_survived(answer: Vec<u8>) {
            let _ = serving(&answer);
        }
    }
}
