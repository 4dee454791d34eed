# One stream from the application, and all clients of the same URL served from it.

vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8000";
    # Longer than the keep-alives are apart, which are 15 seconds.
    .between_bytes_timeout = 60s;
}

sub vcl_backend_response {
    if (beresp.http.Content-Type ~ "^text/event-stream") {
        # Pass on what has come, before the end.
        set beresp.do_stream = true;
        # When its time is over, the next client begins a new one.
        set beresp.grace = 0s;
        set beresp.keep = 0s;
    }
}
