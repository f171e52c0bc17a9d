//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hbaseJars is a standalone HBase: master, region server and ZooKeeper in one process.
var hbaseJars = javaServer{
	name: "hbase",
	jars: []string{
		"org.apache.hbase:hbase-server:2.6.4-hadoop3",
		"org.apache.hbase:hbase-zookeeper:2.6.4-hadoop3",
	},
	class:  "CreateTables",
	source: createTables,
}

// createTables makes the tables of OpenTSDB.
const createTables = `
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.*;

public class CreateTables {
	public static void main(String[] args) throws Exception {
		try (Connection c = ConnectionFactory.createConnection(HBaseConfiguration.create()); Admin admin = c.getAdmin()) {
			String[][] tables = {{"tsdb-uid", "id", "name"}, {"tsdb", "t"}, {"tsdb-tree", "t"}, {"tsdb-meta", "name"}};
			for (String[] t : tables) {
				TableDescriptorBuilder b = TableDescriptorBuilder.newBuilder(TableName.valueOf(t[0]));
				for (int i = 1; i < t.length; i++) b.setColumnFamily(ColumnFamilyDescriptorBuilder.of(t[i]));
				admin.createTable(b.build());
			}
		}
	}
}
`

// tsdJars is OpenTSDB. It must not share a class path with HBase. Without jaxb-api
// queries hang on Java 11 and later.
var tsdJars = javaServer{
	name: "opentsdb",
	jars: []string{
		"net.opentsdb:opentsdb:2.4.1",
		"javax.xml.bind:jaxb-api:2.3.1",
	},
	without: []string{"com.google.gwt:gwt-user", "net.opentsdb:opentsdb_gwt_theme"},
}

// hbase is a standalone HBase on loopback, with the tables of OpenTSDB. It ends with
// the test.
type hbase struct {
	*process
	zooKeeper string // its address
}

// startHBase starts an HBase and makes the tables: some 20 s.
func startHBase(t testing.TB) *hbase {
	t.Helper()
	java, classPath := needServer(t, hbaseJars)
	dir := t.TempDir()
	ports := steadyPorts(t, "tcp", 3)
	conf := map[string]string{
		"hbase.cluster.distributed":                   "false",
		"hbase.rootdir":                               "file://" + filepath.Join(dir, "data"),
		"hbase.tmp.dir":                               filepath.Join(dir, "tmp"),
		"hbase.unsafe.stream.capability.enforce":      "false",
		"hbase.wal.provider":                          "filesystem",
		"hbase.zookeeper.quorum":                      "127.0.0.1",
		"hbase.zookeeper.property.clientPort":         fmt.Sprint(ports[0]),
		"hbase.zookeeper.property.clientPortAddress":  "127.0.0.1",
		"hbase.zookeeper.property.dataDir":            filepath.Join(dir, "zk"),
		"hbase.zookeeper.property.admin.enableServer": "false",
	}
	for i, role := range []string{"master", "regionserver"} {
		conf["hbase."+role+".hostname"] = "localhost"
		conf["hbase."+role+".ipc.address"] = "127.0.0.1"
		conf["hbase."+role+".port"] = fmt.Sprint(ports[1+i])
		conf["hbase."+role+".info.port"] = "-1"
	}
	var site strings.Builder
	site.WriteString("<configuration>\n")
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&site, "<property><name>%s</name><value>%s</value></property>\n", name, html.EscapeString(conf[name]))
	}
	site.WriteString("</configuration>\n")
	write(t, filepath.Join(dir, "hbase-site.xml"), site.String())
	write(t, filepath.Join(dir, "log4j.properties"), `log4j.rootLogger=WARN,A
log4j.logger.org.apache.hadoop.hbase.master.HMaster=INFO
log4j.appender.A=org.apache.log4j.ConsoleAppender
log4j.appender.A.target=System.err
log4j.appender.A.layout=org.apache.log4j.PatternLayout
log4j.appender.A.layout.ConversionPattern=%d %p %c{1}: %m%n
`)
	classPath = dir + ":" + classPath
	h := &hbase{zooKeeper: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	h.process = launch(t, nil, java, "-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp", classPath, "org.apache.hadoop.hbase.master.HMaster", "start")
	t.Cleanup(h.kill) // being asked, it takes half a minute to end
	h.awaitReady()
	if err := runIn(t, dir, java, "-XX:TieredStopAtLevel=1", "-cp", classPath, hbaseJars.class); err != nil {
		t.Fatal(err)
	}
	return h
}

// awaitReady waits for the master of this life.
func (h *hbase) awaitReady() {
	h.t.Helper()
	h.await(hang, h.said("Master has completed initialization"))
}

// Kill ends HBase with kill -9.
func (h *hbase) Kill() { h.kill() }

// Restart starts it again after a Kill, on the same ports and with what it had, and
// returns when the master says that it is ready: 10 to 20 s. Do not freeze it for
// longer than 2 s instead: it gives itself up.
func (h *hbase) Restart() {
	h.t.Helper()
	h.run()
	h.awaitReady()
}

// openTSDB is a TSD on an HBase. It ends with the test.
type openTSDB struct {
	*process
	URL string // such as http://127.0.0.1:4242
}

// startOpenTSDB starts a TSD: a second. The properties are added to opentsdb.conf. Without
// any it is a TSD as it comes, but for two things: metrics are made by being written,
// and the buffer is flushed after 100 ms and not after a second.
func startOpenTSDB(t testing.TB, h *hbase, properties map[string]string) *openTSDB {
	t.Helper()
	java, classPath := needServer(t, tsdJars)
	dir := t.TempDir()
	port := steadyPorts(t, "tcp", 1)[0]
	conf := map[string]string{
		"tsd.network.port":                   fmt.Sprint(port),
		"tsd.network.bind":                   "127.0.0.1",
		"tsd.http.staticroot":                dir,
		"tsd.http.cachedir":                  filepath.Join(dir, "cache"),
		"tsd.core.auto_create_metrics":       "true",
		"tsd.storage.hbase.zk_quorum":        h.zooKeeper,
		"hbase.rpcs.buffered_flush_interval": "100",
	}
	maps.Copy(conf, properties)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		fmt.Fprintf(&text, "%s = %s\n", name, conf[name])
	}
	file := filepath.Join(dir, "opentsdb.conf")
	write(t, file, text.String())
	write(t, filepath.Join(dir, "logback.xml"), `<configuration><appender name="S" class="ch.qos.logback.core.ConsoleAppender">`+
		`<encoder><pattern>%d{ISO8601} %-5level [%thread] %logger{0}: %msg%n</pattern></encoder></appender>`+
		`<logger name="QueryLog" level="OFF"/><root level="WARN"><appender-ref ref="S"/></root></configuration>`)
	if err := os.Mkdir(filepath.Join(dir, "cache"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &openTSDB{URL: fmt.Sprintf("http://127.0.0.1:%d", port)}
	s.process = launch(t, nil, java, "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", dir+":"+classPath, "net.opentsdb.tools.TSDMain", "--config="+file)
	t.Cleanup(s.kill)
	s.awaitReady()
	return s
}

func (s *openTSDB) awaitReady() {
	s.t.Helper()
	s.await(hang, func() error {
		_, err := s.get("/api/version")
		return err
	})
}

// Kill ends the TSD with kill -9: what it had not flushed is lost.
func (s *openTSDB) Kill() { s.kill() }

// Restart starts it again after a Kill.
func (s *openTSDB) Restart() {
	s.t.Helper()
	s.run()
	s.awaitReady()
}

// get asks on a connection of its own, as an answer may never come on another.
func (s *openTSDB) get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", path, resp.Status, body)
	}
	return body, err
}

// tsdSeries is one series as /api/query gives it.
type tsdSeries struct {
	Metric string                `json:"metric"`
	Tags   map[string]string     `json:"tags"`
	Dps    map[int64]json.Number `json:"dps"` // by second, or millisecond if asked so
}

// Query reads back every series of a metric from a time on, as it was written: without
// aggregation, by second. metric may have a filter, as in "m{host=a}".
func (s *openTSDB) Query(metric string, from time.Time) ([]tsdSeries, error) {
	body, err := s.get(fmt.Sprintf("/api/query?start=%d&m=%s", from.Unix(), url.QueryEscape("none:"+metric)))
	if err != nil {
		return nil, err
	}
	var all []tsdSeries
	return all, json.Unmarshal(body, &all)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
