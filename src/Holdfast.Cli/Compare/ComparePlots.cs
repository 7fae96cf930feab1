using System.Globalization;
using OxyPlot;
using OxyPlot.Axes;
using OxyPlot.Legends;
using OxyPlot.Series;

namespace Holdfast.Cli.Compare;

/// <summary>The plots of a comparison, as SVG.</summary>
internal static class ComparePlots
{
    private const double Width = 900;

    /// <summary>Colours that people tell apart who see few of them, and markers for those who see none (the palette of Okabe and Ito).</summary>
    private static readonly OxyColor[] s_colors =
    [
        OxyColor.Parse("#0072B2"), OxyColor.Parse("#D55E00"), OxyColor.Parse("#009E73"), OxyColor.Parse("#CC79A7"),
        OxyColor.Parse("#E69F00"), OxyColor.Parse("#56B4E9"), OxyColor.Parse("#333333"), OxyColor.Parse("#8C6D31"),
    ];

    private static readonly MarkerType[] s_markers = [MarkerType.Circle, MarkerType.Square, MarkerType.Triangle, MarkerType.Diamond];

    /// <summary>Writes the plots into a folder.</summary>
    /// <returns>Their files' names, and what each shows.</returns>
    public static IReadOnlyList<(string File, string Shows)> Write(CompareReport report, string folder)
    {
        var plots = new List<(string File, string Shows)>();
        foreach (var workload in report.Workloads)
        {
            var bars = Figures(report, workload, cell => cell.Closed).Where(row => row.Figures.AnsweredPerSecond > 0).ToList();
            if (bars.Count > 0)
            {
                Save(Throughput(workload, bars), $"throughput-{workload.Name}.svg", 80 + (30 * bars.Count), $"Orders answered a second under {workload.Name} ({workload.Meaning})");
            }
        }

        foreach (var workload in report.Workloads)
        {
            var lines = report.Rows.Select(row => (row.Name, row.Cells.FirstOrDefault(cell => cell.Workload == workload.Name)?.Open ?? [])).Where(line => line.Item2.Count > 0).ToList();
            if (lines.Count > 0)
            {
                Save(
                    Lines($"Latency under {workload.Name}: p99 by the share of the capacity that is offered", "per cent of the scheme's capacity", "milliseconds, p99", logarithmicX: false, lines, figures => new(figures.Share!.Value * 100, figures.P99Ms)),
                    $"latency-{workload.Name}.svg", 460, $"p99 under {workload.Name}, by the share of the capacity that is offered");
            }
        }

        var curves = report.Rows.Select(row => (row.Name, row.Cells.FirstOrDefault(cell => cell.Callers.Count > 0)?.Callers ?? [])).Where(line => line.Item2.Count > 0).ToList();
        if (curves.Count > 0)
        {
            Save(
                Lines("One hot SKU: what a crowd does to each scheme", "callers", "deductions accepted a second", logarithmicX: true, curves, figures => new(figures.Callers, figures.AcceptedPerSecond)),
                "callers.svg", 460, "Deductions of one hot SKU accepted a second, by the number of callers");
        }

        return plots;

        void Save(PlotModel model, string file, double height, string shows)
        {
            using var stream = File.Create(Path.Combine(folder, file));
            new SvgExporter { Width = Width, Height = height, UseVerticalTextAlignmentWorkaround = true, TextMeasurer = new Measurer(height) }.Export(model, stream);
            plots.Add((file, shows));
        }
    }

    private static IEnumerable<(string Name, CompareFigures Figures)> Figures(CompareReport report, ComparedWorkload workload, Func<CompareCell, CompareFigures?> choose) =>
        from row in report.Rows
        from cell in row.Cells
        where cell.Workload == workload.Name
        let figures = choose(cell)
        where figures is not null
        select (row.Name, figures);

    private static PlotModel Throughput(ComparedWorkload workload, List<(string Name, CompareFigures Figures)> rows)
    {
        var model = Model($"Orders answered a second: {workload.Name}");

        // The first row on top.
        rows.Reverse();
        var names = new CategoryAxis { Position = AxisPosition.Left, GapWidth = 0.35, IsTickCentered = true, TickStyle = TickStyle.None };
        names.Labels.AddRange(rows.Select(row => row.Name));
        model.Axes.Add(names);
        model.Axes.Add(new LinearAxis
        {
            Position = AxisPosition.Bottom,
            Minimum = 0,
            MaximumPadding = 0.14,
            MajorGridlineStyle = LineStyle.Solid,
            MajorGridlineColor = OxyColors.LightGray,
            TickStyle = TickStyle.None,
            StringFormat = "#,##0",
        });
        var bars = new BarSeries { FillColor = s_colors[0], LabelPlacement = LabelPlacement.Outside, LabelFormatString = "{0:#,##0}", FontSize = 11 };
        bars.Items.AddRange(rows.Select(row => new BarItem(row.Figures.AnsweredPerSecond)));
        model.Series.Add(bars);
        return model;
    }

    private static PlotModel Lines(
        string title, string x, string y, bool logarithmicX, List<(string Name, IReadOnlyList<CompareFigures> Figures)> lines, Func<CompareFigures, DataPoint> place)
    {
        var model = Model(title);
        model.Axes.Add(logarithmicX ? Style(new LogarithmicAxis { Base = 2 }, AxisPosition.Bottom, x) : Style(new LinearAxis { MajorStep = 25, MinimumPadding = 0.05, MaximumPadding = 0.05 }, AxisPosition.Bottom, x));
        model.Axes.Add(Style(new LogarithmicAxis { MinimumPadding = 0.05, MaximumPadding = 0.05 }, AxisPosition.Left, y));
        model.Legends.Add(new Legend { LegendPlacement = LegendPlacement.Outside, LegendPosition = LegendPosition.RightTop, LegendFontSize = 11 });
        for (var i = 0; i < lines.Count; i++)
        {
            var color = s_colors[i % s_colors.Length];
            var series = new LineSeries
            {
                Title = lines[i].Name,
                Color = color,
                LineStyle = i < s_colors.Length ? LineStyle.Solid : LineStyle.Dash,
                MarkerType = s_markers[i % s_markers.Length],
                MarkerFill = color,
                MarkerSize = 4,
            };
            series.Points.AddRange(lines[i].Figures.Select(place).Where(point => point.Y > 0));
            model.Series.Add(series);
        }

        return model;

        static Axis Style(Axis axis, AxisPosition position, string title)
        {
            axis.Position = position;
            axis.Title = title;
            axis.MajorGridlineStyle = LineStyle.Solid;
            axis.MajorGridlineColor = OxyColors.LightGray;
            axis.TickStyle = TickStyle.None;
            axis.StringFormat = "#,##0.###";
            return axis;
        }
    }

    private static PlotModel Model(string title) => new()
    {
        Title = title,
        TitleFontSize = 15,
        TitleFontWeight = FontWeights.Bold,
        // The exporter knows the widths of a few fonts, of which this is the one that most machines have, or something like it.
        DefaultFont = "Arial",
        DefaultFontSize = 12,
        Background = OxyColors.White,
        PlotAreaBorderThickness = new(0),
        Padding = new(8, 8, 24, 8),
        Culture = CultureInfo.InvariantCulture,
    };

    /// <summary>
    /// The exporter measures in points and draws in pixels, and a viewer without the font takes a wider one: unless texts are given more
    /// room, they overlap.
    /// </summary>
    private sealed class Measurer(double height) : PdfRenderContext(Width, height, OxyColors.White)
    {
        private const double PixelsAPoint = 96.0 / 72.0;
        private const double WiderFonts = 1.1;

        public override OxySize MeasureText(string text, string fontFamily, double fontSize, double fontWeight)
        {
            var size = base.MeasureText(text, fontFamily, fontSize, fontWeight);
            return new(size.Width * PixelsAPoint * WiderFonts, size.Height * PixelsAPoint);
        }
    }
}
