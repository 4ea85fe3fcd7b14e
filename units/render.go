package units

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed templates
var templates embed.FS

// Render returns the contents of the unit files by file name. The same Service
// gives the same bytes. It fails if [Service.Validate] does.
func (s Service) Render() (map[string][]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	funcs := template.FuncMap{"comment": comment}
	t, err := template.New("").Funcs(funcs).ParseFS(templates, "templates/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("parse the templates: %w", err)
	}
	files := make(map[string][]byte)
	render := func(file, name string, data any) error {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, name, data); err != nil {
			return fmt.Errorf("render %s: %w", file, err)
		}
		files[file] = b.Bytes()
		return nil
	}
	if err := render(s.UnitName(), "service.tmpl", s.serviceView()); err != nil {
		return nil, err
	}
	for i := range s.Sockets {
		if err := render(s.SocketUnitName(i), "socket.tmpl", s.socketView(i)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// comment makes comments of lines.
func comment(lines string) string { return "# " + strings.ReplaceAll(lines, "\n", "\n# ") }

// serviceView is what service.tmpl needs: everything is quoted already, so that
// the template has no logic to get wrong.
type serviceView struct {
	Service
	Systemctl    string
	Hdctl        string // as to be typed
	Command      string // that asks for the units
	Description  string
	SocketUnits  []string
	ExecStart    string
	ExecReload   string
	ExecStop     string
	Environment  []string // of the author
	Options      []option
	Sandbox      []setting
	TimeoutStart string
	TimeoutStop  string
	Watchdog     string
	Target       string
}

func (s Service) serviceView() serviceView {
	v := serviceView{
		Service:      s,
		Systemctl:    "systemctl",
		Hdctl:        "hdctl",
		Command:      shellQuote(s.Command),
		Description:  percent(s.Description),
		ExecStart:    command(s.Exec, s.Args...),
		TimeoutStart: span(s.timeoutStart()),
		TimeoutStop:  span(s.timeoutStop()),
		Options:      s.options(),
		Sandbox:      s.sandbox(),
		Target:       "multi-user.target",
	}
	reload := []string{"upgrade", "--queue", s.Name}
	if s.UserManager {
		v.Systemctl, v.Hdctl = "systemctl --user", "hdctl --user"
		v.Target = "default.target"
		reload = append([]string{"--user"}, reload...)
	}
	v.ExecReload = command(s.Hdctl, reload...)
	v.ExecStop = command(s.Hdctl, "exec-stop")
	for i := range s.Sockets {
		v.SocketUnits = append(v.SocketUnits, s.SocketUnitName(i))
	}
	if s.Watchdog > 0 {
		v.Watchdog = span(s.Watchdog)
	}
	for _, e := range s.Environment {
		v.Environment = append(v.Environment, assignment(e))
	}
	return v
}

// socketView is what socket.tmpl needs.
type socketView struct {
	Socket
	Systemctl   string
	Unit        string
	Service     string // its unit
	Description string
	Listen      []string
	File        bool
	Mode        string
}

func (s Service) socketView(i int) socketView {
	sock := s.Sockets[i]
	v := socketView{
		Socket:      sock,
		Systemctl:   "systemctl",
		Unit:        s.SocketUnitName(i),
		Service:     s.UnitName(),
		Description: percent(s.Description) + ": socket " + sock.Name,
	}
	if s.UserManager {
		v.Systemctl = "systemctl --user"
	}
	if sock.Mode != 0 {
		v.Mode = fmt.Sprintf("%04o", sock.Mode)
	}
	for _, l := range sock.Listen {
		v.Listen = append(v.Listen, fmt.Sprintf("Listen%v=%s", l.Kind, percent(l.Address)))
		v.File = v.File || l.file()
	}
	return v
}
