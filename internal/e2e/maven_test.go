//go:build linux

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// javaServer is a server of Maven Central: what its class path is made from.
type javaServer struct {
	name    string
	jars    []string // group:artifact:version; what they depend on comes with them
	without []string // group:artifact, of what they depend on
	source  string   // a Java class to have beside the jars, compiled; may be empty
	class   string   // its name
}

// pom is the Maven project whose dependencies are the server.
func (s javaServer) pom() string {
	var b strings.Builder
	b.WriteString("<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>" + s.name +
		"</artifactId><version>1</version><packaging>pom</packaging><dependencies>\n")
	for _, jar := range s.jars {
		c := strings.Split(jar, ":")
		fmt.Fprintf(&b, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version><exclusions>", c[0], c[1], c[2])
		for _, x := range s.without {
			group, artifact, _ := strings.Cut(x, ":")
			fmt.Fprintf(&b, "<exclusion><groupId>%s</groupId><artifactId>%s</artifactId></exclusion>", group, artifact)
		}
		b.WriteString("</exclusions></dependency>\n")
	}
	b.WriteString("</dependencies></project>\n")
	return b.String()
}

// stamp names this very pom and source.
func (s javaServer) stamp() string {
	sum := sha256.Sum256([]byte(s.pom() + s.source))
	return hex.EncodeToString(sum[:])
}

// needServer returns the java program and the class path of a server, or skips the test.
func needServer(t testing.TB, s javaServer) (java, classPath string) {
	t.Helper()
	needHeavy(t)
	java = need(t, "java", "openjdk-17-jre-headless")
	t.Logf("the server is %s", s.jars[0])
	return java, s.classPath(t)
}

// classPath returns the class path of the server. The jars lie in a folder of the
// user's cache, kemi-e2e/NAME-STAMP; where it is, neither Maven nor the network is
// needed. Else Maven fills it, under a lock that other test binaries respect and a
// name that becomes the right one only when all is there.
func (s javaServer) classPath(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.cached(filepath.Join(cache, "kemi-e2e"), func(dir string) error { return s.fill(t, dir) })
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// cached returns the class path in a cache, filling it if it has to.
func (s javaServer) cached(cache string, fill func(dir string) error) (string, error) {
	dir := filepath.Join(cache, s.name+"-"+s.stamp())
	path := filepath.Join(dir, "classes") + ":" + filepath.Join(dir, "lib", "*")
	if _, err := os.Stat(dir); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// One lock for all servers: Maven's own repository is not made for two at once.
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // which unlocks it, as the death of this process does
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil { // filled by another while we waited
		return path, nil
	}
	made, err := os.MkdirTemp(cache, "filling-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	if err := fill(made); err != nil {
		return "", err
	}
	return path, os.Rename(made, dir)
}

// fill puts the jars into dir/lib and the compiled source into dir/classes.
func (s javaServer) fill(t testing.TB, dir string) error {
	mvn := need(t, "mvn", "maven")
	javac := ""
	if s.source != "" {
		javac = need(t, "javac", "openjdk-17-jdk-headless")
	}
	began := time.Now()
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(s.pom()), 0o644); err != nil {
		return err
	}
	const copyJars = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
	bring := func() error {
		return runIn(t, dir, mvn, "-q", "-B", copyJars, "-DincludeScope=runtime", "-DoutputDirectory=lib")
	}
	err := bring()
	for tries := 1; err != nil && tries < 3; tries++ { // it goes on with what it has not brought yet
		t.Logf("Maven is asked again: %v", err)
		err = bring()
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "classes"), 0o755); err != nil {
		return err
	}
	if s.source != "" {
		name := s.class + ".java"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s.source), 0o644); err != nil {
			return err
		}
		if err := runIn(t, dir, javac, "-nowarn", "-proc:none", "-cp", "lib/*", "-d", "classes", name); err != nil {
			return err
		}
	}
	t.Logf("Maven brought the jars of %s in %s", s.name, time.Since(began).Round(time.Second))
	return nil
}

// runIn runs a program in a folder to its end; what it printed is in the error.
func runIn(t testing.TB, dir, name string, args ...string) error {
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(string(out), 40))
	}
	return nil
}

// However many ask at once, the folder is filled once, and nobody sees it half full.
func TestJarsAreBroughtOnceAndWhole(t *testing.T) {
	cache := t.TempDir()
	s := javaServer{name: "some", jars: []string{"g:a:1"}}
	var filled int // guarded by the file lock
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			path, err := s.cached(cache, func(dir string) error {
				filled++
				for i := range 20 {
					time.Sleep(time.Millisecond)
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
				return
			}
			files, err := os.ReadDir(filepath.Dir(strings.Split(path, ":")[0]))
			if err != nil || len(files) != 20 {
				t.Errorf("%d files, %v", len(files), err)
			}
		})
	}
	group.Wait()
	if filled != 1 {
		t.Errorf("filled %d times", filled)
	}
	newer := s
	newer.jars = []string{"g:a:2"}
	broken := errors.New("no network")
	if _, err := newer.cached(cache, func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("filling failed, and the class path says %v", err)
	}
	here, err := s.cached(cache, nil)
	there, err2 := newer.cached(cache, func(string) error { return nil })
	if err != nil || err2 != nil || here == there {
		t.Errorf("%s %v, another version %s %v", here, err, there, err2)
	}
	left, err := filepath.Glob(filepath.Join(cache, "filling-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
