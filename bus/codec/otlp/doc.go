/*
Package otlp has the codecs whose encodings other tools read: those of the OpenTelemetry
protocol, in protobuf. The value of a Kafka record is an ExportMetricsServiceRequest or
an ExportLogsServiceRequest, which the OpenTelemetry Collector reads with the encoding
otlp_proto, and so do Vector and Alloy. What those write, these codecs read.

Everything comes back as it was, and in its order, or AppendBatch refuses it. There is a
resource for each run of records of one host, and so mostly one in a batch. Of what kemi
has and OTLP does not, the value that other tools see is as near as OTLP has one, and
the rest is metadata beside it.

# Metrics

	kemi                            OTLP
	label host                      attribute host.name of the resource; none for a metric without host
	other labels                    attributes of the data point
	Gauge                           Gauge, as_double
	FloatCounter                    Sum, cumulative, monotonic, as_double
	Counter                         Sum, cumulative, monotonic, as_int
	Counter above 2^63-1            the same, as_double (rounded) and metadata kemi.value, all digits
	Counter32                       as Counter, and metadata kemi.kind = counter32
	Time                            time_unix_nano, and 0 for the zero time
	Time that has no such number    time_unix_nano 0 and metadata kemi.time, as 1700000000.000000001
	NaN, infinities                 their bits
	the staleness marker            no value and the flag no_recorded_value; a Gauge or a FloatCounter
	a value that is not UTF-8       bytes_value in place of string_value

Metrics that follow each other and have one name and kind are the data points of one
Metric; with metadata kemi.value or kemi.time a Metric has one point. There is no scope,
unit, description or start time. A Time comes back as the same instant, in UTC.

What else a foreign message may have is read so:

	as_int of a gauge               a float64, rounded above 2^53
	Sum that is not monotonic       a gauge
	Sum of deltas                   a gauge of what was added: a codec cannot add up, the
	                                collector's deltatocumulative can
	negative Sum                    a FloatCounter
	Histogram                       counters name_bucket{le}, name_count, and name_sum if it is there
	ExponentialHistogram            the same, with powers of two for bounds, whatever its scale
	                                is: finer buckets are added up
	histograms of deltas            the same, as gauges
	Summary                         gauges name{quantile}, counters name_sum and name_count
	no_recorded_value, or no value  the staleness marker
	attributes of the resource      labels; host.name is host. Those of the point stand before them
	host beside host.name           the label exported_host, as in Prometheus
	numbers, booleans               labels of their text
	lists, maps                     labels of their JSON; null for nothing, base64 for bytes
	exemplars, min, max, units, descriptions, scopes, start times     not read

A metric without host.name has no host and so the empty partition key: let the collector's
resourcedetection put it there. Names keep their dots.

# Logs

	kemi                            OTLP
	Host                            attribute host.name of the resource
	Time, Observed                  time_unix_nano, observed_time_unix_nano, and 0 for the zero time
	those without such a number     attributes kemi.time, kemi.observed_time
	Severity                        severity_number (21, 19, 18, 17, 13, 10, 9, 5) and severity_text, its keyword
	Message                         body: string_value, bytes_value where it is not UTF-8, none where it is empty
	App                             attribute service.name of the record, as a resource has many apps
	Facility                        attribute log.syslog.facility.code, none for 0
	Tag                             attribute fluent.tag
	ID                              attribute log.record.uid
	Fields                          attributes

Fields come back sorted by key, those of one key in the order they had. Their values:

	string, bool, int64, float64    string_value, bool_value, int_value, double_value
	uint64                          int_value; above 2^63-1 a string of digits      u
	duration                        int_value, nanoseconds                          d
	time                            string_value, RFC 3339, in UTC                  t
	string that is not UTF-8        bytes_value                                     s
	group                           kvlist_value; slog leaves out empty groups in groups
	nil, []byte                     no value, bytes_value
	[]any                           array_value, and so are the lists in it

These come back as they were. The letters stand in the attribute kemi.kinds, one for each
value of the fields with those in groups and lists, and - for one that speaks for itself;
without any letter there is no such attribute. Where it does not fit the fields, because
somebody has changed them, they are what they say. The others are changed on the way,
for good: a map[string]any to a group (in a list it stays a map, with int64 and float64
for all numbers slog widens), a LogValuer to its value, an error to its text, and
anything else to its JSON, or what fmt prints if it has none.

Of a foreign record the severity is that of its number (1-8 debug, 9 info, 10-12 notice,
13-16 warning, 17 error, 18 critical, 19-20 alert, 21-24 emergency), or if it has none of
its text, or info. A body that is no string is its text, a list or map its JSON.
service.name of the resource is the App where the record has none. The other attributes of
the resource are fields, unless the record has one of that key, and event_name, trace_id
and span_id (in hexadecimal) are too. Flags, scopes and dropped counts are not read.

# Names

A name of a metric, a label or a field is written as it is. One that is not UTF-8, that
begins with "kemi:", or, of a field, is one of those above, is written behind "kemi:", with
% and what is not UTF-8 as %XX.

# Limits

What is nested deeper than 32 levels is refused, in both directions. So is a message whose
labels or fields would take more memory than a multiple of its bytes, as the attributes of
a resource are on each of its records: 65,536 and two for each byte. A field that is not
known is skipped; one that is known with another wire type is an error, as the bytes are
those of something else.
*/
package otlp
